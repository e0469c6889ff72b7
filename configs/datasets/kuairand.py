"""KuaiRand-Pure, six days: short histories, so the embeddings decide.

Command: `python -m sparsectr.train --dataset=kuairand`
Split: the last day (UTC+8) is the test.
Measured test AUC, 3 seeds: 0.7383 +- 0.0011 (0.7378, 0.7375, 0.7396).
Floor: 0.6938, the logit sum of smoothed video and user means (result.json).
Printed by benchmarks.ablation, which is now
`python -m benchmarks.sweep --dataset=kuairand --novalidation`.
Time: 66 seconds of training (median) and 34 of first steps.
Hardware: 2 shared cores (AMD EPYC), no GPU; other work ran beside.
Commit: 901892ee7f54; measured before tags were a set, and without durations
and play times in the history.
"""

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config

CONFIG = config.Config(
    dataset="kuairand",
    model=SparseCTRRecipe(),
    data=config.DataConfig(max_history=32),
    train=config.TrainConfig(
        batch_size=128,
        eval_batch_size=512,
        # One epoch reads most ids a few times only.
        embedding_learning_rate=1e-2,
    ),
)
