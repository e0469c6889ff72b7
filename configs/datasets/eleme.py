"""Ele.me; the paper's settings at Sparsity-2 with its 50 behaviors.

Command: `python -m sparsectr.train --dataset=eleme`
Split: 2022-04-07 trains, 2022-04-08 (UTC+8) is the test.
Measured on the real files: not yet. They need an account, and the paper tells
neither batch size nor learning rate: those here are untried.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="eleme",
    model=SparseCTRRecipe(),
    data=config.DataConfig(max_history=50),
    train=config.TrainConfig(batch_size=256, eval_batch_size=512),
)
