"""Alibaba display-ad clicks; the paper's settings at Sparsity-2.

Command: `python -m sparsectr.train --dataset=alibaba`
Split: the first seven days train, the eighth (CST) is the test.
Expected test AUC, three seeds: to be measured.
Time: to be measured.
Hardware: to be measured.
Commit: to be measured.
"""

from sparsectr import config

CONFIG = config.Config(
    dataset="alibaba",
    train=config.TrainConfig(batch_size=32, learning_rate=2e-3),
)
