"""Full attention as the paper builds it: every row in every block.

Axes: B batch, L history length, C candidates, N = L + C, d width.
"""

import dataclasses

import keras
from keras import ops

from configs.models.sparse_ctr import (
    FEED_FORWARD_MULTIPLIER,
    SparseCTRRecipe,
)
from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.full_attention import FullPlan
from sparsectr.model_recipe import (
    RequestShape,
    embedding_flops,
    prediction_flops,
)
from sparsectr.models.ranking_model import Inputs, Scores
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.causal_blocks import QueryBlock
from sparsectr.ops.places import Places, places_of_history, places_of_request
from sparsectr.ops.tensor import Tensor
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperConstructionRecipe(SparseCTRRecipe):
    """SparseCTR with full attention, all rows in all blocks."""

    network = "benchmarks.attention.paper_construction:PaperConstruction"

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        rows = shape.length + shape.num_candidates
        # Queries, keys, values and results; and the feed-forward network.
        products = (4 + 3 * FEED_FORWARD_MULTIPLIER) * rows * self.width**2
        products += 2 * rows**2 * self.width
        return (
            embedding_flops(self, schema, shape)
            + prediction_flops(self, schema, shape)
            + 2 * shape.batch_size * self.num_blocks * products
        )


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

    def call(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> Scores:
        """Returns the candidates' scores."""
        del trace
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
            self.blocks[0].attention,
        )
        no_user_key = ops.zeros_like(rows[:, 0])
        for block in self.blocks:
            rows, _ = block.encode(rows, no_user_key, plan, is_last=False)
        logits = self.prediction(
            rows[:, -num_candidates:], self.embedding.user(inputs)
        )
        return Scores(logits, {}, {})


def plan_all_rows(
    behavior_time: Tensor,
    request_time: Tensor,
    num_candidates: int,
    attention: Attention,
) -> FullPlan:
    """Relates the places of all rows, behaviours and candidates.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
        request_time: int64 `[B]`, Unix seconds.
        num_candidates: C.
        attention: Whose encoding relates them.

    Returns:
        `FullPlan` of N rows, which ask in one block under the block mask.
    """
    length = behavior_time.shape[1]
    history = places_of_history(behavior_time)
    request = places_of_request(request_time)
    columns = [1, num_candidates]
    time = ops.concatenate(
        [history.time, ops.tile(request.time, columns)], axis=1
    )  # [B, N]
    position = ops.concatenate(
        [history.position, ops.zeros((1, num_candidates), "int32")], axis=1
    )
    index = ops.arange(length + num_candidates, dtype="int32")
    causal = ops.expand_dims(index, 0) <= ops.expand_dims(index, 1)
    valid = ops.logical_and(time > 0, index < length)
    places = Places(time, position, valid, ops.zeros_like(valid))
    all_rows = QueryBlock(
        0,
        None,
        attention.encoding.relate(places, places),
        ops.logical_and(ops.expand_dims(valid, 1), causal),
    )  # [B, N, N]
    return FullPlan(places, valid, (all_rows,))
