"""The Complete Journey, groceries with MADE negatives; nothing is tuned.

Command: `python -m sparsectr.train --dataset=completejourney`
Split: the first 90 % of the candidates by time train, the rest test.
Measured: not yet.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="completejourney",
    model=SparseCTRRecipe(),
    data=config.DataConfig(max_history=1024),
)
