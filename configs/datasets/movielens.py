"""MovieLens 1M; a rating of 4 or more is a click.

Command: `python -m sparsectr.train --dataset=movielens`
Split: the first 90 % of the ratings by time train, the rest test.
Measured test AUC, 3 seeds: 0.7962 +- 0.0005 (0.7966, 0.7957, 0.7964).
Printed by benchmarks.ablation, which is now
`python -m benchmarks.sweep --dataset=movielens --novalidation`.
Time: 10.1 minutes of training (median).
Hardware: 2 shared cores (AMD EPYC), no GPU; other work ran beside.
Commit: ac71d959551c; measured before genre and year were a set and a number.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="movielens",
    model=SparseCTRRecipe(),
    data=config.DataConfig(max_history=128),
    train=config.TrainConfig(batch_size=256, eval_batch_size=512),
)
