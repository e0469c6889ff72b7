"""ETA: End-to-end Target Attention (Chen et al., 2021).

Axes: B batch, L history length, C candidates, k retrieved, d width, m bits.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from sparsectr.layers.retrieval.random_codes import RandomCodes
from sparsectr.layers.retrieval.target_attention import TargetAttention
from sparsectr.models.ranking_model import Auxiliary, Inputs, UserState
from sparsectr.models.retrieval_model import RetrievalModel, record_found
from sparsectr.ops.best_columns import best_columns
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace

if TYPE_CHECKING:
    from configs.models.eta import ETARecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class ETA(RetrievalModel):
    """Target attention to the behaviors whose code is nearest.

        c(x) = 1{x R > 0},   R fixed and random, d x m
        long = attention of q to e_i of the k lowest Hamming(c(q), c(e_i))
        logit = MLP([short, long, q, e_U])

    Arguments, call arguments and returns are those of `RankingModel`. Of
    behaviors at the same distance, of which there are only m + 1, the newest
    are found.

    The embeddings are trained through the attention alone, and hashed as they
    are at each step. The state is the embedded history, `[L, d]`, with its
    times, which say what is padding; it may be reused for any later request
    with the same history, unless `gap_to_request` is read in `encode_user`.

    Cost:
        O(L d (m + d) + C L m + C k d) multiplications: with codes of -1 and 1
        all distances are one matrix product. Where codes can be stored, the
        paper's search is C L operations of m bits.

    Differs from the paper:
        Codes are computed in `score` and not stored, since training moves
        them. Of equal distances the newest win, on which it is silent. One
        hidden layer in the head, unless the preset says more.
    """

    recipe: "ETARecipe"

    def make_search(self) -> None:
        """Makes the layers of the long interest."""
        recipe, policy = self.recipe, self.dtype_policy
        self.codes = RandomCodes(recipe.num_bits, name="codes", dtype=policy)
        self.long_attention = TargetAttention(
            recipe.num_heads, name="long_attention", dtype=policy
        )

    def build_search(self, profile: int) -> None:
        """Builds them."""
        rows = (None, None, self.recipe.width)
        self.codes.build(rows)
        self.long_attention.build(rows, rows)

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Returns what the k nearest behaviors say."""
        likeness = ops.matmul(
            self.codes(candidates),
            ops.transpose(self.codes(behaviors), (0, 2, 1)),
        )  # [B, C, L]
        index, found = best_columns(
            likeness,
            ops.expand_dims(state["time"] > 0, 1),
            self.recipe.num_retrieved,
        )
        record_found(trace, index, found)
        if trace is not None:
            trace.record("distance", (self.recipe.num_bits - likeness) / 2)
        interest = self.long_attention(
            candidates, behaviors, found, index, trace=trace
        )
        return interest, {}
