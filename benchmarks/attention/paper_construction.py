"""Full attention as the paper builds it: every row in every block.

Axes: B batch, L history length, C candidates, N = L + C, d width.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sparsectr.layers.attention.full_attention import FullPlan, QueryBlock
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.temporal_features import temporal_features


@keras.saving.register_keras_serializable(package="sparsectr_benchmarks")
class PaperConstruction(SparseCTR):
    """`SparseCTR` with full attention, but not its arrangement (section 3.3).

    The candidates stand behind the behaviours, and all N rows pass all
    blocks under one mask: a behaviour reads itself and what is before it, a
    candidate reads the behaviours alone. Layers, weights and scores are
    those of `SparseCTR` with `attention="full"`, which passes behaviours and
    candidates apart and computes no behaviour in the last block.

    Call arguments, returns and arguments are those of `SparseCTR`.

    Cost:
        O(N^2 d) in every block.
    """

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Returns the candidates' logits, float32 `[B, C]`."""
        num_candidates = inputs["candidate_mask"].shape[1]
        rows = self.dropout(
            ops.concatenate(
                [
                    self.embedding.behaviors(inputs),
                    self.embedding.candidates(inputs),
                ],
                axis=1,
            ),
            training=training,
        )  # [B, N, d]
        plan = plan_all_rows(
            inputs["behavior_time"],
            inputs["request_time"],
            num_candidates,
            self.schema.utc_offset_hours,
        )
        no_user_key = ops.zeros_like(rows[:, 0])
        for block in self.blocks:
            rows, _, _ = block.encode(rows, no_user_key, plan, is_last=False)
        return self.prediction(
            rows[:, -num_candidates:], self.embedding.user(inputs)
        )


def plan_all_rows(
    behavior_time: Any,
    request_time: Any,
    num_candidates: int,
    utc_offset_hours: int,
) -> FullPlan:
    """Relates the times of all rows, behaviours and candidates.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
        request_time: int64 `[B]`, Unix seconds.
        num_candidates: C.
        utc_offset_hours: The data set's time zone.

    Returns:
        `FullPlan` of N rows, which ask in one block under the block mask.
    """
    length = behavior_time.shape[1]
    time = ops.concatenate(
        [
            behavior_time,
            ops.tile(ops.expand_dims(request_time, 1), [1, num_candidates]),
        ],
        axis=1,
    )  # [B, N]
    position = ops.arange(length + num_candidates, dtype="int32")
    causal = ops.expand_dims(position, 0) <= ops.expand_dims(position, 1)
    key_mask = ops.logical_and(time > 0, position < length)
    all_rows = QueryBlock(
        0,
        None,
        temporal_features(
            ops.expand_dims(time, 2),
            ops.expand_dims(time, 1),
            utc_offset_hours,
        ),
        ops.logical_and(ops.expand_dims(key_mask, 1), causal),
    )  # [B, N, N]
    return FullPlan(time, key_mask, (all_rows,))
