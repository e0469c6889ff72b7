"""One's own tables: the paper's settings at Sparsity-2, nothing tuned.

Command: `python -m sparsectr.train --dataset=parquet --data_dir=STORE`
Split: what the schema file of the store says.

Values to look at first, with `data_pipelines.describe` beside them:
`--data.max_history`, `--batch_size` (memory grows with it) and
`--learning_rate`.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="parquet",
    model=SparseCTRRecipe(),
    train=config.TrainConfig(batch_size=64),
)
