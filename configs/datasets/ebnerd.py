"""EB-NeRD news, demo size; the values are KuaiRand's, with longer histories.

Command: `python -m sparsectr.train --dataset=ebnerd`, on a store prepared
with `--statistics`.
Measured test AUC, first week, 5 seeds: 0.7194 +- 0.0011 with statistics,
0.5967 +- 0.0066 without.
Floor: 0.5893, the logit sum of smoothed article and reader means.
Printed by benchmarks.ablation, which is now
`python -m benchmarks.sweep --dataset=ebnerd --novalidation`, with
the variants of benchmarks/LOG.md.
Hardware: 2 shared cores (AMD EPYC), no GPU; other work ran beside.
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
