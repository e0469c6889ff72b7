"""TWIN: Two-stage Interest Network (Chang et al., KDD 2023).

Axes: B batch, L history length, C candidates, k retrieved, d width, H heads.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.retrieval.compressed_fields import CompressedFields
from sparsectr.layers.retrieval.consistent_attention import (
    ConsistentAttention,
)
from sparsectr.models.ranking_model import Auxiliary, Inputs, UserState
from sparsectr.models.retrieval_model import RetrievalModel
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace
from sparsectr.recipes.cross_features import Column, total_width

if TYPE_CHECKING:
    from configs.models.twin import TWINRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class TWIN(RetrievalModel):
    """Attention to the k behaviors that it scores highest itself.

        alpha_ih = (K^h_i W_h) . (q W_q,h) / sqrt(d_h)
                   + sum_j beta_jh (K^c_ij . w_jh)
        long = [softmax over the k best of head h](alpha_ih) [e_i, gap_i] W_v
        logit = MLP([short, long, q, e_U])

    Arguments, call arguments and returns are those of `RankingModel`. K^h are
    the embedded fields that are of the item, K^c_ij those that are of the
    event, among them the gap to the request; `configs/models/twin.py` says
    which are which. Search and attention have one score, so that the search
    learns with the attention. Each head finds its own k.

    The state is the embedded history and its keys, `[L, d]` each, with the
    biases of the cross features, `[L, H]`, and the times; it may be reused for
    any later request with the same history, unless `gap_to_request` is read
    in `encode_user`: gap_i is read in `score`.

    Cost:
        O(L d (F + d) + C L d + C k d) multiplications for fields of F columns,
        and C H searches among L numbers.

    Differs from the paper:
        Keys are computed at each request, which the paper precomputes for
        every video. One hidden layer in the head, unless the preset says
        more.
    """

    recipe: "TWINRecipe"

    def make_search(self) -> None:
        """Makes the layers of the long interest."""
        recipe, policy = self.recipe, self.dtype_policy
        self.columns = recipe.columns(self.schema)
        self.key = keras.layers.Dense(
            recipe.width, use_bias=False, name="key", dtype=policy
        )
        self.cross: CompressedFields | None = None
        if self.columns.cross:
            self.cross = CompressedFields(
                [column.width for column in self.columns.cross],
                recipe.num_heads,
                name="cross",
                dtype=policy,
            )
        self.gap = GapEmbedding(
            recipe.embedding_dim, "retrieved_gap", name="gap", dtype=policy
        )
        self.gap_cross = CompressedFields(
            [recipe.embedding_dim],
            recipe.num_heads,
            name="gap_cross",
            dtype=policy,
        )
        self.long_attention = ConsistentAttention(
            recipe.num_heads,
            recipe.num_retrieved,
            name="long_attention",
            dtype=policy,
        )

    def build_search(self, profile: int) -> None:
        """Builds them."""
        recipe = self.recipe
        rows = (None, None, recipe.width)
        self.key.build((None, None, total_width(self.columns.inherent)))
        if self.cross is not None:
            self.cross.build()
        self.gap.build()
        self.gap_cross.build()
        self.long_attention.build(
            rows,
            rows_shape=(None, None, recipe.width + recipe.embedding_dim),
        )

    def encode_search(
        self,
        inputs: Inputs,
        features: Tensor,
        behaviors: Tensor,
        training: bool,
    ) -> UserState:
        """Returns keys, and the biases of what is known of the events."""
        inherent = fields_of(features, self.columns.inherent)
        state = {"keys": self.key(self.dropout(inherent, training=training))}
        if self.cross is not None:
            cross = self.cross(fields_of(features, self.columns.cross))
            state["cross"] = ops.transpose(cross, (0, 2, 1))  # [B, L, H]
        return state

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Returns what the k best of each head say."""
        interest = self.read_found(
            state, inputs, candidates, behaviors, training, trace
        )
        return interest, {}

    def read_found(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        rows: Tensor,
        training: bool,
        trace: Trace | None,
        log_count: Tensor | None = None,
    ) -> Tensor:
        """Scores some rows, and reads the k best of each head.

        Args:
            state: Their `keys`, `cross` and `time`, 0 for padding.
            inputs: `request_time`.
            candidates: Embedded, float `[B, C, d]`.
            rows: float `[B, L, d]`.
            training: Whether dropout is applied.
            trace: Gets what was found.
            log_count: float32 `[B, L]`, the logarithm of how often each
                counts; `None` for once.
        """
        gaps = self.gap(state["time"], inputs["request_time"])
        gaps = self.dropout(gaps, training=training)
        bias = ops.cast(self.gap_cross(gaps), "float32")  # [B, H, L]
        if "cross" in state:
            cross = ops.cast(state["cross"], "float32")
            bias = bias + ops.transpose(cross, (0, 2, 1))
        if log_count is not None:
            bias = bias + ops.expand_dims(log_count, 1)
        return self.long_attention(
            candidates,
            state["keys"],
            bias,
            ops.concatenate([rows, gaps], axis=-1),
            state["time"] > 0,
            trace=trace,
        )


def fields_of(features: Tensor, columns: tuple[Column, ...]) -> Tensor:
    """Returns the columns of some fields, side by side."""
    return ops.concatenate(
        [features[..., c.start : c.start + c.width] for c in columns], axis=-1
    )
