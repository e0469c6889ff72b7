"""SparseBlock: attention and feed-forward network with pre-norm.

Axes: B batch, L history length, C candidates, S keys, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.attention.evo_attention import EvoAttention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.swiglu import SwiGLU

FEED_FORWARD_MULTIPLIER = 3
"""Hidden width of the feed-forward network in widths d (section 3.3)."""


@keras.saving.register_keras_serializable(package="sparsectr")
class SparseBlock(keras.layers.Layer):
    """One SparseBlock (section 3.3).

        x = x + Attention(RMSNorm(x))
        x = x + SwiGLU(RMSNorm(x))

    Behaviours and candidates pass the same weights at different times:
    `encode` takes the behaviours and leaves behind the keys and values that
    candidates read, `call` takes the candidates.

    Args:
        num_heads: H.
        num_chunks: P.
        num_transition: m.
        attention: "evo" for EvoAttention, "full" for full attention.
        temporal_bias: Whether RelTemporal is added to the logits.

    Call arguments:
        candidates: float `[B, C, d]`.
        keys: float `[B, S, d]`, from `encode`.
        values: float `[B, S, d]`, from `encode`.
        features: Three float32 tensors `[B, 1, S]`, the temporal features.
        key_mask: bool `[B, S]`; True = keep.

    Returns:
        float `[B, C, d]`.

    Raises:
        ValueError: If `attention` is neither "evo" nor "full".

    Differs from the paper:
        The residuals of both halves, which section 3.3 does not write.
    """

    def __init__(
        self,
        num_heads: int,
        num_chunks: int,
        num_transition: int,
        attention: str = "evo",
        temporal_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        # The temporal features stay float32; rows are cast by `call`.
        super().__init__(autocast=False, **kwargs)
        if attention not in ("evo", "full"):
            raise ValueError(
                '`attention` must be "evo" or "full". '
                f"Received: attention={attention!r}"
            )
        self.num_heads = num_heads
        self.num_chunks = num_chunks
        self.num_transition = num_transition
        self.attention = attention
        self.temporal_bias = temporal_bias

    def build(
        self, candidates_shape: Any, *unused: Any, **unused_named: Any
    ) -> None:
        policy = self.dtype_policy
        self.attention_norm = keras.layers.RMSNormalization(
            name="attention_norm", dtype=policy
        )
        self.feed_forward_norm = keras.layers.RMSNormalization(
            name="feed_forward_norm", dtype=policy
        )
        if self.attention == "evo":
            self.attention_layer: Any = EvoAttention(
                self.num_heads,
                self.num_chunks,
                self.num_transition,
                self.temporal_bias,
                name="attention",
                dtype=policy,
            )
        else:
            self.attention_layer = FullAttention(
                self.num_heads,
                self.temporal_bias,
                name="attention",
                dtype=policy,
            )
        width = candidates_shape[-1]
        self.feed_forward = SwiGLU(
            FEED_FORWARD_MULTIPLIER * width, name="feed_forward", dtype=policy
        )
        for layer in (
            self.attention_norm,
            self.feed_forward_norm,
            self.attention_layer,
            self.feed_forward,
        ):
            layer.build((None, None, width))
        self.built = True

    def encode(
        self, behaviors: Any, user: Any, plan: Any, *, is_last: bool
    ) -> tuple[Any, Any, Any]:
        """Passes the behaviours through the block.

        Args:
            behaviors: float `[B, L, d]`.
            user: float `[B, d]`, u_c.
            plan: `EvoPlan` or `FullPlan`.
            is_last: Whether no later block will read the behaviours: their
                rows are not computed then.

        Returns:
            The behaviours' rows `[B, L, d]` (`None` if `is_last`), and keys
            and values for candidates, `[B, S, d]` each.
        """
        behaviors = ops.cast(behaviors, self.compute_dtype)
        hidden = self.attention_norm(behaviors)
        keys, values = self.attention_layer.select(
            hidden, self.attention_norm(user), plan
        )
        if is_last:
            return None, keys, values
        attended = self.attention_layer.attend_history(
            hidden, keys, values, plan
        )
        return self._feed_forward(behaviors + attended), keys, values

    def call(
        self,
        candidates: Any,
        keys: Any,
        values: Any,
        features: Any,
        key_mask: Any,
    ) -> Any:
        candidates = ops.cast(candidates, self.compute_dtype)
        attended = self.attention_layer(
            self.attention_norm(candidates), keys, values, features, key_mask
        )
        return self._feed_forward(candidates + attended)

    def _feed_forward(self, rows: Any) -> Any:
        return rows + self.feed_forward(self.feed_forward_norm(rows))

    def compute_output_shape(
        self,
        candidates_shape: Any,
        keys_shape: Any = None,
        values_shape: Any = None,
        features_shape: Any = None,
        key_mask_shape: Any = None,
    ) -> Any:
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_chunks": self.num_chunks,
            "num_transition": self.num_transition,
            "attention": self.attention,
            "temporal_bias": self.temporal_bias,
        }
