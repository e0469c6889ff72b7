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
    data=config.DataConfig(max_history=64),
    train=config.TrainConfig(batch_size=256),
)
