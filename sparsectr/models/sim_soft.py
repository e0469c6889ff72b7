"""SIM with soft search (Pi et al., CIKM 2020).

Axes: B batch, L history length, C candidates, k retrieved, d width.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.retrieval.target_attention import TargetAttention
from sparsectr.models.ranking_model import Auxiliary, Inputs, UserState
from sparsectr.models.retrieval_model import RetrievalModel, record_found
from sparsectr.ops.best_columns import best_columns
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace

if TYPE_CHECKING:
    from configs.models.sim_soft import SIMSoftRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class SIMSoft(RetrievalModel):
    """A learned search, and target attention to the k best that it finds.

        r_i = (W_b e_i) . (W_a q)
        long = attention of q to [e_i, gap_i] of the k highest r_i
        u = sum_i r_i e_i,   auxiliary logit = MLP'([u, q, e_U])
        logit = MLP([short, long, q, e_U])

    Arguments, call arguments and returns are those of `RankingModel`.

    What is found has no gradient: W_a and W_b learn through the auxiliary
    prediction alone, which is computed in training alone.

    The state is the embedded history, `[L, d]`, with its times; it may be
    reused for any later request with the same history, unless
    `gap_to_request` is read in `encode_user`: gap_i is read in `score`.

    Cost:
        O(L d (s + 2 (d + e)) + C L s + C k d) multiplications for a search of
        width s and gaps of width e.

    Differs from the paper:
        The short interest is target attention to the newest behaviors, as in
        the published comparisons, and not DIEN over the last ones. Gaps are
        by powers of two. One hidden layer in the heads, unless the preset
        says more.
    """

    recipe: "SIMSoftRecipe"

    def make_search(self) -> None:
        """Makes the layers of the long interest."""
        recipe, policy = self.recipe, self.dtype_policy
        self.search_behavior, self.search_candidate = (
            keras.layers.Dense(
                recipe.search_width, use_bias=False, name=name, dtype=policy
            )
            for name in ("search_behavior", "search_candidate")
        )
        self.gap = GapEmbedding(
            recipe.embedding_dim, "retrieved_gap", name="gap", dtype=policy
        )
        self.long_attention = TargetAttention(
            recipe.num_heads, name="long_attention", dtype=policy
        )
        self.search_head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="search_head",
            dtype=policy,
        )

    def build_search(self, profile: int) -> None:
        """Builds them."""
        recipe = self.recipe
        rows = (None, None, recipe.width)
        self.search_behavior.build(rows)
        self.search_candidate.build(rows)
        self.gap.build()
        self.long_attention.build(
            rows, (None, None, recipe.width + recipe.embedding_dim)
        )
        self.search_head.build(
            (None, None, 2 * recipe.width), (None, profile) if profile else None
        )

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Returns what the k best say, and in training the auxiliary logit."""
        valid = ops.expand_dims(state["time"] > 0, 1)  # [B, 1, L]
        scores = ops.matmul(
            self.search_candidate(candidates),
            ops.transpose(self.search_behavior(behaviors), (0, 2, 1)),
        )  # [B, C, L]
        index, found = best_columns(scores, valid, self.recipe.num_retrieved)
        record_found(trace, index, found)
        gaps = self.gap(state["time"], inputs["request_time"])
        gaps = self.dropout(gaps, training=training)
        rows = ops.concatenate([behaviors, gaps], axis=-1)  # [B, L, d + e]
        interest = self.long_attention(
            candidates, rows, found, index, trace=trace
        )
        if not training:
            return interest, {}
        scores = ops.where(valid, scores, ops.zeros((), scores.dtype))
        pooled = ops.matmul(scores, behaviors)  # [B, C, d]
        logits = self.search_head(
            ops.concatenate([pooled, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        weight = self.recipe.auxiliary_weight
        return interest, {"search": Auxiliary(weight, logits)}
