"""MovieLens 1M; a rating of 4 or more is a click.

Command: `python -m sparsectr.train --dataset=movielens`
Split: the first 90 % of the ratings by time train, the rest test.
Expected test AUC, three seeds: to be measured.
Time: to be measured.
Hardware: to be measured.
Commit: to be measured.
"""

from sparsectr import config

CONFIG = config.Config(
    dataset="movielens",
    data=config.DataConfig(max_history=128, length_buckets=(32, 64)),
    train=config.TrainConfig(batch_size=256, eval_batch_size=512),
)
