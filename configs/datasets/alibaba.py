"""Alibaba display-ad clicks; the paper's settings at Sparsity-2.

Command: `python -m sparsectr.train --dataset=alibaba`
Split: the first seven days train, the eighth (UTC+8) is the test.
Measured on the real files: not yet.
Measured on the SYNTHETIC sample, seed 0: test AUC 0.7036, GAUC 0.7063.
Time: 5 minutes for the whole command, 4 of them training.
Hardware: 2 shared cores (AMD EPYC), no GPU.
Commit: dab5fae.

A larger `--batch_size` suits the real files, which have a thousand times as
many requests.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="alibaba",
    model=SparseCTRRecipe(),
    train=config.TrainConfig(
        batch_size=32, eval_batch_size=32, learning_rate=2e-3
    ),
)
