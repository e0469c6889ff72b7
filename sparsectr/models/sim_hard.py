"""SIM with hard search (Pi et al., CIKM 2020).

Axes: B batch, L history length, C candidates, k retrieved, d width.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from sparsectr.layers.retrieval.gap_buckets import GapBuckets
from sparsectr.layers.retrieval.target_attention import TargetAttention
from sparsectr.models.ranking_model import Auxiliary, Inputs, UserState
from sparsectr.models.retrieval_model import RetrievalModel, record_found
from sparsectr.ops.best_columns import best_columns
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace
from sparsectr.schema import NUM_RESERVED_IDS

if TYPE_CHECKING:
    from configs.models.sim_hard import SIMHardRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class SIMHard(RetrievalModel):
    """Target attention to the newest behaviors of the candidate's category.

        M = {i : category_i = category_q},   the k newest of them
        long = attention of q to [e_i, gap_i], i in M;   0 if M is empty
        logit = MLP([short, long, q, e_U])

    Arguments, call arguments and returns are those of `RankingModel`. The
    recipe's `category` says which field is compared. A category that is
    missing or out of vocabulary is like none.

    The state is the embedded history, `[L, d]`, with its times and category
    ids; it may be reused for any later request with the same history, unless
    `gap_to_request` is read in `encode_user`: gap_i is read in `score`.

    Cost:
        O(L d (d + e) + C k d) multiplications with gaps of width e, and C L
        comparisons. The search has no weights.

    Differs from the paper:
        The history is searched in the graph, where the paper has an index
        from user and category to behaviors. The short interest is target
        attention to the newest behaviors, as in the published comparisons,
        and not DIEN. One hidden layer in the head, unless the preset says
        more.
    """

    recipe: "SIMHardRecipe"

    def make_search(self) -> None:
        """Makes the layers of the long interest."""
        recipe, policy = self.recipe, self.dtype_policy
        self.category = recipe.category_fields(self.schema)
        self.gap = GapBuckets(
            recipe.embedding_dim,
            recipe.gap_days,
            "retrieved_gap",
            name="gap",
            dtype=policy,
        )
        self.long_attention = TargetAttention(
            recipe.num_heads, name="long_attention", dtype=policy
        )

    def build_search(self, profile: int) -> None:
        """Builds them."""
        recipe = self.recipe
        self.gap.build()
        self.long_attention.build(
            (None, None, recipe.width),
            (None, None, recipe.width + recipe.embedding_dim),
        )

    def encode_search(
        self,
        inputs: Inputs,
        features: Tensor,
        behaviors: Tensor,
        training: bool,
    ) -> UserState:
        """Returns the category ids of the behaviors."""
        ids = inputs[f"behavior_{self.category.behavior.name}"]
        return {"category": ops.convert_to_tensor(ids)}

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Returns what the k newest of the category say."""
        time = state["time"]
        own = inputs[f"candidate_{self.category.candidate.name}"]
        own = ops.expand_dims(own, 2)  # [B, C, 1]
        size = self.schema.table(self.category.candidate.table).size
        is_known = ops.logical_and(own >= NUM_RESERVED_IDS, own < size)
        is_like = ops.equal(own, ops.expand_dims(state["category"], 1))
        is_match = ops.logical_and(is_like, is_known)  # [B, C, L]
        is_match = ops.logical_and(is_match, ops.expand_dims(time > 0, 1))
        # The newest are the last columns.
        age = ops.arange(ops.shape(time)[1], dtype="float32")
        index, found = best_columns(
            ops.broadcast_to(age, ops.shape(is_match)),
            is_match,
            self.recipe.num_retrieved,
        )
        record_found(trace, index, found)
        gaps = self.gap(time, inputs["request_time"])
        gaps = self.dropout(gaps, training=training)
        rows = ops.concatenate([behaviors, gaps], axis=-1)  # [B, L, d + e]
        interest = self.long_attention(
            candidates, rows, found, index, trace=trace
        )
        return interest, {}
