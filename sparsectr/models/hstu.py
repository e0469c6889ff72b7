"""HSTU: Hierarchical Sequential Transduction Unit (Zhai et al., ICML 2024).

Axes: B batch, L history length, C candidates, d width.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.encoding.encoding import Features
from sparsectr.layers.encoding.hstu_bias import HSTUBias
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.causal_blocks import QueryBlock, causal_blocks
from sparsectr.ops.places import places_of_history, places_of_request
from sparsectr.ops.pointwise_attention import (
    attend_pointwise,
    attend_pointwise_to_self,
)
from sparsectr.ops.tensor import Tensor

if TYPE_CHECKING:
    from configs.models.hstu import HSTURecipe

_EPSILON = 1e-6
"""Of the published layer norms."""


@keras.saving.register_keras_serializable(package="sparsectr")
class HSTU(RankingModel):
    """Blocks of causal attention without a softmax, then an MLP.

        x_0 = sqrt(d) e,   x_n = HSTUBlock(x_(n-1))
        logit = MLP([x_N of the candidate, e of the candidate, e_U])

    Arguments, call arguments and returns are those of `RankingModel`. A
    candidate stands one place behind the newest behaviour, at the request's
    time, and reads all behaviours and itself.

    The state holds keys and values of every block, `[blocks, L, d]` each, and
    the times, `[L]`; it may be reused for any later request with the same
    history, unless `gap_to_request` is a field. How long ago a behaviour was
    enters in `score`.

    Cost:
        O(L^2 d) in all blocks but the last, where only candidates are
        computed: O(C L d).

    Differs from the paper:
        Ranking, not generating: candidates follow the history, not each
        behaviour, and are told apart from behaviours by a projection of their
        own, where it has an embedded action. Widths of queries, keys, values
        and gates are d. `attention_normalizer` need not be the longest
        history. The head is an MLP of last row and candidate.
    """

    recipe: "HSTURecipe"

    def __init__(
        self, schema: Any, recipe: "HSTURecipe", **kwargs: Any
    ) -> None:
        super().__init__(schema, recipe, **kwargs)
        recipe, policy = self.recipe, self.dtype_policy
        self.embedding = RequestEmbedding(
            self.schema,
            recipe.embedding_dim,
            recipe.width,
            name="embedding",
            dtype=policy,
        )
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.blocks = [
            HSTUBlock(
                recipe.num_heads,
                recipe.attention_normalizer,
                recipe.num_positions,
                recipe.block_dropout_rate,
                name=f"block_{index}",
                dtype=policy,
            )
            for index in range(recipe.num_blocks)
        ]
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        width = self.recipe.width
        profile = user_width(self.recipe, self.schema)
        self.embedding.build()
        for block in self.blocks:
            block.build((None, None, width))
        self.head.build(
            (None, None, 2 * width), (None, profile) if profile else None
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        time = ops.convert_to_tensor(inputs["behavior_time"])
        rows = self.embedding.behaviors(inputs) * self.recipe.width**0.5
        rows = self.dropout(rows, training=training)  # [B, L, d]
        relate = self.blocks[0].encoding.relate
        last = len(self.blocks) - 1
        queries = causal_blocks(places_of_history(time), relate) if last else ()
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            rows, key, value = block.encode(
                rows, queries, is_last=index == last, training=training
            )
            keys.append(key)
            values.append(value)
        state = {
            "keys": ops.stack(keys, axis=1),  # [B, blocks, L, d]
            "values": ops.stack(values, axis=1),
            "time": time,
        }
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        del trace
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        history = places_of_history(state["time"])
        request = places_of_request(inputs["request_time"])
        relate = self.blocks[0].encoding.relate
        features = relate(request, history)  # [B, 1, L]
        own_features = relate(request, request)  # [B, 1, 1]
        rows = candidates * self.recipe.width**0.5
        for index, block in enumerate(self.blocks):
            rows = block(
                rows,
                state["keys"][:, index],
                state["values"][:, index],
                features,
                own_features,
                history.valid,
                training=training,
            )
        logits = self.head(
            ops.concatenate([rows, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {})


@keras.saving.register_keras_serializable(package="sparsectr")
class HSTUBlock(keras.layers.Layer):
    """One hierarchical sequential transduction unit (Eqs. 1 to 3).

        [u, q, k, v] = silu(LN(x) W)
        a_ij = silu(q_i . k_j / sqrt(d_h) + bias_ij) / N
        y_i = x_i + (u_i * LN(sum_j a_ij v_j)) W_o + b_o

    Layer norms have no weights, and there is no feed-forward network.
    `encode` takes the behaviours and leaves behind what candidates read;
    `call` takes the candidates, each of which has itself as one more key.

    Args:
        num_heads: H.
        normalizer: N, a constant, so that no score depends on padding.
        num_positions: Distances that have a bias of their own.
        dropout_rate: Of dropout before W_o.

    Call arguments:
        candidates: float `[B, C, d]`.
        keys: float `[B, L, d]`, from `encode`.
        values: float `[B, L, d]`, from `encode`.
        features: Of the encoding, `[B, 1, L]` each.
        own_features: Of a candidate and itself, `[B, 1, 1]` each.
        key_mask: bool `[B, L]`; True = keep.
        training: Whether dropout is applied.

    Returns:
        float `[B, C, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Numerics:
        Weights are float32 under every policy.

    Differs from the paper:
        Its equation has no scale; 1 / sqrt(d_h) is that of its published
        code for production.
    """

    def __init__(
        self,
        num_heads: int,
        normalizer: int,
        num_positions: int,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # The features of places stay as they are; rows are cast by `call`.
        super().__init__(autocast=False, **kwargs)
        self.num_heads = num_heads
        self.normalizer = normalizer
        self.num_positions = num_positions
        self.dropout_rate = dropout_rate
        policy = self.dtype_policy
        self.encoding = HSTUBias(num_positions, name="encoding")
        self.input_norm = _layer_norm("input_norm", policy)
        self.sum_norm = _layer_norm("sum_norm", policy)
        self.dropout = Dropout(dropout_rate, name="dropout", dtype=policy)

    def build(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> None:
        width = candidates_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        rows = (None, None, width)
        self.input_projection = keras.layers.Dense(
            4 * width,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="input_projection",
            dtype=self.dtype_policy,
        )
        self.output_projection = keras.layers.Dense(
            width, name="output_projection", dtype=self.dtype_policy
        )
        for layer in (
            self.encoding,
            self.input_norm,
            self.sum_norm,
            self.input_projection,
            self.output_projection,
        ):
            layer.build(rows)
        self.built = True

    def encode(
        self,
        behaviors: Tensor,
        queries: tuple[QueryBlock, ...],
        *,
        is_last: bool,
        training: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Passes the behaviours through the block.

        Args:
            behaviors: float `[B, L, d]`.
            queries: Their blocks of queries; not read if `is_last`.
            is_last: Whether no later block will read the behaviours: their
                rows are not computed then.
            training: Whether dropout is applied.

        Returns:
            The behaviours' rows `[B, L, d]` (`None` if `is_last`), and the
            keys and values that candidates will read, float `[B, L, d]`.
        """
        behaviors = ops.cast(behaviors, self.compute_dtype)
        hidden = self.input_norm(behaviors)
        if is_last:
            kernel = ops.cast(self.input_projection.kernel, hidden.dtype)
            half = kernel[:, 2 * behaviors.shape[-1] :]
            keys, values = ops.split(ops.silu(ops.matmul(hidden, half)), 2, -1)
            return None, keys, values
        gates, query, keys, values = self._projected(hidden)
        sums = [
            attend_pointwise(
                query[:, block.start : block.end],
                keys[:, : block.end],
                values[:, : block.end],
                self.encoding.bias(block.features),
                block.mask,
                self.num_heads,
            )
            for block in queries
        ]
        attended = ops.concatenate(sums, axis=1)  # [B, L, d]
        rows = behaviors + self._output(gates, attended, training)
        return rows, keys, values

    def call(
        self,
        candidates: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        own_features: Features,
        key_mask: Tensor,
        training: bool = False,
    ) -> Tensor:
        candidates = ops.cast(candidates, self.compute_dtype)
        gates, query, own_key, own_value = self._projected(
            self.input_norm(candidates)
        )
        attended = attend_pointwise(
            query,
            keys,
            values,
            self.encoding.bias(features),
            ops.expand_dims(key_mask, 1),
            self.num_heads,
        ) + attend_pointwise_to_self(
            query,
            own_key,
            own_value,
            self.encoding.bias(own_features),
            self.num_heads,
        )
        return candidates + self._output(gates, attended, training)

    def _projected(self, hidden: Tensor) -> list[Tensor]:
        """Returns gates, queries, keys and values, `[B, rows, d]` each."""
        return ops.split(ops.silu(self.input_projection(hidden)), 4, axis=-1)

    def _output(self, gates: Tensor, sums: Tensor, training: bool) -> Tensor:
        attended = self.sum_norm(sums * (1.0 / self.normalizer))
        gated = gates * ops.cast(attended, gates.dtype)
        return self.output_projection(self.dropout(gated, training=training))

    def compute_output_shape(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> Any:
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "normalizer": self.normalizer,
            "num_positions": self.num_positions,
            "dropout_rate": self.dropout_rate,
        }


def _layer_norm(name: str, policy: Any) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(
        epsilon=_EPSILON, center=False, scale=False, name=name, dtype=policy
    )
