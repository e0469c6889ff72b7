"""Full attention that computes every pair of behaviours."""

from typing import Any

import keras

from sparsectr.layers.attention.full_attention import plan_full_attention
from sparsectr.models.sparse_ctr import SparseCTR


@keras.saving.register_keras_serializable(package="sparsectr_benchmarks")
class AllPairs(SparseCTR):
    """`SparseCTR` with full attention that does not skip later keys.

    Behaviours ask in one block, and the causal mask throws away half of what
    was computed, as in TensorFlow's and Keras's own attention layers.
    Layers, weights and scores are those of `SparseCTR` with
    `attention="full"`.
    """

    def plan(self, behavior_time: Any) -> Any:
        """Returns `FullPlan`, with a single block of queries."""
        return plan_full_attention(
            behavior_time,
            utc_offset_hours=self.schema.utc_offset_hours,
            for_history=len(self.blocks) > 1,
            num_query_blocks=1,
        )
