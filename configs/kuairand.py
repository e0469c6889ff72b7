"""KuaiRand-Pure, six days: short histories, so the embeddings decide.

Command: `python -m sparsectr.train --dataset=kuairand`
Split: the last day (UTC+8) is the test.
Expected test AUC, three seeds: to be measured.
Time: to be measured.
Hardware: to be measured.
Commit: to be measured.
"""

from sparsectr import config

CONFIG = config.Config(
    dataset="kuairand",
    data=config.DataConfig(
        max_history=32,
        length_buckets=(8, 16),
        candidate_buckets=(2, 8, 32, 128),
    ),
    train=config.TrainConfig(
        batch_size=128,
        eval_batch_size=512,
        # One epoch reads most ids a few times only.
        embedding_learning_rate=1e-2,
    ),
)
