"""A transformer block that norms what enters each half.

Axes: B batch, Q queries, S keys, H heads, D width.
"""

from typing import Any

import keras

from sparsectr.ops.candidate_attention import attend_history_and_self
from sparsectr.ops.head_attention import attend
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


@keras.saving.register_keras_serializable(package="sparsectr")
class PreNormBlock(keras.layers.Layer):
    """Attention and feed-forward network, each normed before.

        x = x + Attention(RMSNorm(x), RMSNorm(R)),   x = x + F(RMSNorm(x))
        F(x) = relu(x W1 + b1) W2 + b2

    Args:
        num_heads: H.
        feed_forward_multiplier: Columns of W1 in widths D.

    Call arguments:
        rows: float `[B, Q, D]`, x.
        keys: float `[B, S, D]`, from `encode`.
        values: float `[B, S, D]`, from `encode`.
        key_mask: bool, broadcasts to `[B, Q, S]`; True = keep.
        reads_itself: Whether each row is one more key, of its own alone.
        trace: Gets `weights`, float32 `[B, Q, H, S]`, behind them each row's
            own where it reads itself.

    Returns:
        float `[B, Q, D]`.

    Cost:
        O(Q S D + Q D^2).
    """

    def __init__(
        self, num_heads: int, feed_forward_multiplier: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feed_forward_multiplier = feed_forward_multiplier

    def build(
        self,
        rows_shape: Any,
        keys_shape: Any = None,
        values_shape: Any = None,
        key_mask_shape: Any = None,
    ) -> None:
        width, policy = rows_shape[-1], self.dtype_policy
        inner = self.feed_forward_multiplier * width
        for name in ("attention_norm", "feed_forward_norm"):
            norm = keras.layers.RMSNormalization(name=name, dtype=policy)
            norm.build((None, None, width))
            setattr(self, name, norm)
        for name, inputs, units in (
            ("query_projection", width, width),
            ("key_projection", width, width),
            ("value_projection", width, width),
            ("output_projection", width, width),
            ("feed_forward_1", width, inner),
            ("feed_forward_2", inner, width),
        ):
            is_network = name.startswith("feed_forward")
            dense = keras.layers.Dense(
                units,
                activation="relu" if name == "feed_forward_1" else None,
                use_bias=is_network,
                name=name,
                dtype=policy,
            )
            dense.build((None, None, inputs))
            setattr(self, name, dense)
        self.built = True

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values of rows, float `[B, S, D]`."""
        normed = self.attention_norm(rows)
        return self.key_projection(normed), self.value_projection(normed)

    def call(
        self,
        rows: Tensor,
        keys: Tensor,
        values: Tensor,
        key_mask: Tensor,
        reads_itself: bool = False,
        trace: Trace | None = None,
    ) -> Tensor:
        query = self.query_projection(self.attention_norm(rows))
        if reads_itself:
            own_key, own_value = self.encode(rows)
            attended = attend_history_and_self(
                query,
                keys,
                values,
                own_key,
                own_value,
                key_mask,
                self.num_heads,
                trace=trace,
            )
        else:
            attended = attend(
                query,
                keys,
                values,
                None,
                key_mask,
                self.num_heads,
                lambda logits, kept, _: masked_exponentials(logits, kept),
                trace,
            )
        rows = rows + self.output_projection(attended)
        hidden = self.feed_forward_1(self.feed_forward_norm(rows))
        return rows + self.feed_forward_2(hidden)

    def compute_output_shape(
        self,
        rows_shape: Any,
        keys_shape: Any = None,
        values_shape: Any = None,
        key_mask_shape: Any = None,
    ) -> Any:
        return rows_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_multiplier": self.feed_forward_multiplier,
        }
