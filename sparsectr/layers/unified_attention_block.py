"""A block that reads history and user and weighs both.

Axes: B batch, L history length, C candidates, N rows, T tokens of the user,
d width, e width of a token.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.encoding.encoding import Features
from sparsectr.layers.encoding.hstu_bias import HSTUBias
from sparsectr.layers.swiglu import SwiGLU
from sparsectr.ops.candidate_attention import attend_history_and_self
from sparsectr.ops.causal_blocks import QueryBlock
from sparsectr.ops.head_attention import attend, attend_by_head
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor


class UserSide(NamedTuple):
    """What candidates read of the user beside the history.

    Attributes:
        user_keys: float `[B, T, d]`.
        user_values: float `[B, T, d]`.
        gate: float `[B, d]`, the share of what is read of the history.
    """

    user_keys: Tensor
    user_values: Tensor
    gate: Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class UnifiedAttentionBlock(keras.layers.Layer):
    """One block of SUAN (RecSys 2025).

        x = RMSNorm_1(x)
        h = RMSNorm_2(x + softmax(q . k / sqrt(d_h) + bias) v W_o)
        c = softmax(q_u . k_u / sqrt(d_h)) v_u W_p, over the user's tokens
        g, 1 - g = softmax over both of relu(mean(h + c) W_1) W_2
        z = RMSNorm_3(h + g * h + (1 - g) * c)
        y = z + SwiGLU(z)

    `encode` takes the behaviours and leaves behind what candidates read;
    `call` takes the candidates, each of which has itself as one more key.
    Without a user z is h.

    Args:
        num_heads: H, of both attentions.
        num_positions: Distances that have a bias of their own.
        token_width: e; `None` without a user.
        feed_forward_multiplier: Hidden width of SwiGLU in widths d.
        dropout_rate: Of what is added to each residual.

    Call arguments:
        candidates: float `[B, C, d]`.
        keys: float `[B, L, d]`, from `encode`.
        values: float `[B, L, d]`, from `encode`.
        features: Of the encoding, `[B, 1, L]` each.
        own_features: Of a candidate and itself, `[B, 1, 1]` each.
        key_mask: bool `[B, L]`; True = keep.
        user_side: From `encode`, or `None`.
        training: Whether dropout is applied.

    Returns:
        float `[B, C, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Masking:
        The mean of the gate is of behaviours alone, and 0 without any.

    Numerics:
        Weights and means are float32 under every policy.

    Differs from the paper:
        The published code takes the mean of the gate over all positions,
        candidate and padding among them; here it is a number of the user's
        that all rows share. The scale of attention to the user is
        1 / sqrt(d_h), there one over the square root of T.
    """

    def __init__(
        self,
        num_heads: int,
        num_positions: int,
        token_width: int | None = None,
        feed_forward_multiplier: int = 3,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # The features of places stay as they are; rows are cast by `call`.
        super().__init__(autocast=False, **kwargs)
        self.num_heads = num_heads
        self.num_positions = num_positions
        self.token_width = token_width
        self.feed_forward_multiplier = feed_forward_multiplier
        self.dropout_rate = dropout_rate
        self.encoding = HSTUBias(num_positions, name="encoding")
        self.dropout = Dropout(
            dropout_rate, name="dropout", dtype=self.dtype_policy
        )

    def build(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> None:
        width = candidates_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        self.encoding.build()
        self.input_norm = self._norm(width, "input_norm")
        self.attention_norm = self._norm(width, "attention_norm")
        self.query_projection = self._dense(width, width, "query_projection")
        self.key_projection = self._dense(width, width, "key_projection")
        self.value_projection = self._dense(width, width, "value_projection")
        self.output_projection = self._dense(width, width, "output_projection")
        self.feed_forward = SwiGLU(
            self.feed_forward_multiplier * width,
            name="feed_forward",
            dtype=self.dtype_policy,
        )
        self.feed_forward.build((None, None, width))
        if self.token_width is not None:
            self._build_user(width, self.token_width)
        self.built = True

    def _build_user(self, width: int, token_width: int) -> None:
        self.user_query = self._dense(width, width, "user_query")
        self.user_key = self._dense(token_width, width, "user_key")
        self.user_value = self._dense(token_width, width, "user_value")
        self.user_output = self._dense(width, width, "user_output")
        narrow = max(1, width // 4)
        self.gate_hidden = self._dense(
            width, narrow, "gate_hidden", activation="relu"
        )
        self.gate_output = self._dense(narrow, 2 * width, "gate_output")
        self.fusion_norm = self._norm(width, "fusion_norm")

    def _dense(
        self, width: int, units: int, name: str, **more: Any
    ) -> keras.layers.Dense:
        layer = keras.layers.Dense(
            units, use_bias=False, name=name, dtype=self.dtype_policy, **more
        )
        layer.build((None, None, width))
        return layer

    def _norm(self, width: int, name: str) -> keras.layers.RMSNormalization:
        layer = keras.layers.RMSNormalization(
            name=name, dtype=self.dtype_policy
        )
        layer.build((None, None, width))
        return layer

    def encode(
        self,
        behaviors: Tensor,
        is_valid: Tensor,
        queries: tuple[QueryBlock, ...],
        tokens: Tensor | None,
        *,
        is_last: bool,
        training: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor, UserSide | None]:
        """Passes the behaviours through the block.

        Args:
            behaviors: float `[B, L, d]`.
            is_valid: bool `[B, L]`, False for padding.
            queries: Their blocks of queries.
            tokens: float `[B, T, e]`, of the user, or `None`.
            is_last: Whether no later block will read the behaviours: their
                rows are not computed then.
            training: Whether dropout is applied.

        Returns:
            The behaviours' rows `[B, L, d]` (`None` if `is_last`), and what
            candidates will read: keys and values, float `[B, L, d]`, and the
            side of the user.
        """
        behaviors = ops.cast(behaviors, self.compute_dtype)
        x = self.input_norm(behaviors)
        keys, values = self.key_projection(x), self.value_projection(x)
        if is_last and tokens is None:
            return None, keys, values, None
        query = self.query_projection(x)
        attended = [
            attend_by_head(
                slice_axis(query, block.start, block.end),
                slice_axis(keys, 0, block.end),
                slice_axis(values, 0, block.end),
                self.encoding.bias(block.features),
                block.mask,
                self.num_heads,
                _softmax,
            )
            for block in queries
        ]
        rows = self._attended(x, ops.concatenate(attended, axis=1), training)
        side, read = None, None
        if tokens is not None:
            user_keys = self.user_key(tokens)  # [B, T, d]
            user_values = self.user_value(tokens)
            read = self._read_user(rows, user_keys, user_values)
            gate = self._gate(rows + read, is_valid)
            side = UserSide(user_keys, user_values, gate)
        if is_last:
            return None, keys, values, side
        return self._output(rows, read, side, training), keys, values, side

    def call(
        self,
        candidates: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        own_features: Features,
        key_mask: Tensor,
        user_side: UserSide | None = None,
        training: bool = False,
    ) -> Tensor:
        x = self.input_norm(ops.cast(candidates, self.compute_dtype))
        attended = attend_history_and_self(
            self.query_projection(x),
            keys,
            values,
            self.key_projection(x),
            self.value_projection(x),
            key_mask,
            self.num_heads,
            self.encoding.bias(features),
            self.encoding.bias(own_features),
        )
        rows = self._attended(x, attended, training)
        read = None
        if user_side is not None:
            read = self._read_user(
                rows, user_side.user_keys, user_side.user_values
            )
        return self._output(rows, read, user_side, training)

    def _attended(self, x: Tensor, attended: Tensor, training: bool) -> Tensor:
        """Returns h, `[B, N, d]`."""
        attended = self.output_projection(attended)
        return self.attention_norm(
            x + self.dropout(attended, training=training)
        )

    def _read_user(self, rows: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Returns c, `[B, N, d]`."""
        mask = ops.ones((1, 1, keys.shape[1]), "bool")
        query = self.user_query(rows)
        return self.user_output(
            attend(query, keys, values, None, mask, self.num_heads, _unmasked)
        )

    def _gate(self, rows: Tensor, is_valid: Tensor) -> Tensor:
        """Returns g, `[B, d]`."""
        kept = ops.where(ops.expand_dims(is_valid, 2), rows, 0.0)
        total = ops.sum(ops.cast(kept, "float32"), axis=1)
        count = ops.sum(ops.cast(is_valid, "float32"), axis=1, keepdims=True)
        mean = ops.cast(total / ops.maximum(count, 1.0), rows.dtype)
        logits = self.gate_output(self.gate_hidden(mean))
        of_history, of_user = ops.split(logits, 2, axis=-1)
        # The softmax of two.
        return ops.sigmoid(of_history - of_user)

    def _output(
        self,
        rows: Tensor,
        read: Tensor | None,
        side: UserSide | None,
        training: bool,
    ) -> Tensor:
        """Returns what follows both attentions, `[B, N, d]`."""
        if read is not None and side is not None:
            share = ops.expand_dims(side.gate, 1)
            fused = share * rows + (1.0 - share) * read
            fused = self.dropout(fused, training=training)
            rows = self.fusion_norm(rows + fused)
        hidden = self.feed_forward(rows)
        return rows + self.dropout(hidden, training=training)

    def compute_output_shape(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> Any:
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_positions": self.num_positions,
            "token_width": self.token_width,
            "feed_forward_multiplier": self.feed_forward_multiplier,
            "dropout_rate": self.dropout_rate,
        }


def _softmax(logits: Tensor, mask: Tensor, head_axis: int) -> Any:
    del head_axis
    return masked_exponentials(logits, mask)


def _unmasked(logits: Tensor, mask: Tensor, head_axis: int) -> Any:
    """The softmax over tokens, which are all there, even of no rows at all."""
    del mask, head_axis
    return ops.softmax(ops.cast(logits, "float32"), axis=-1), 1.0
