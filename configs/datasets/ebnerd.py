"""EB-NeRD news, demo size; nothing chosen on anything yet.

Command: `python -m sparsectr.train --dataset=ebnerd`
Split: the last day (07:00 UTC to 07:00) of the first week is the test; with
the folders `train` and `validation` the second week.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="ebnerd",
    model=SparseCTRRecipe(),
    data=config.DataConfig(max_history=256),
    train=config.TrainConfig(
        batch_size=64, eval_batch_size=128, embedding_learning_rate=1e-2
    ),
)
