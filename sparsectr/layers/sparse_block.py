"""SparseBlock: attention and feed-forward network with pre-norm.

Axes: B batch, L history length, C candidates, S keys, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded, Plan
from sparsectr.layers.encoding.encoding import Features
from sparsectr.layers.serialization import deserialized, serialized
from sparsectr.layers.swiglu import SwiGLU
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


@keras.saving.register_keras_serializable(package="sparsectr")
class SparseBlock(keras.layers.Layer):
    """One SparseBlock (section 3.3).

        x = x + Attention(RMSNorm(x))
        x = x + SwiGLU(RMSNorm(x))

    Behaviours and candidates pass the same weights at different times:
    `encode` takes the behaviours and leaves behind the keys and values that
    candidates read, `call` takes the candidates.

    Args:
        attention: The attention.
        feed_forward_multiplier: Hidden width of the feed-forward network in
            widths d.

    Call arguments:
        candidates: float `[B, C, d]`.
        keys: float `[B, S, d]`, from `encode`.
        values: float `[B, S, d]`, from `encode`.
        features: What `attention.relate` returns.
        key_mask: bool `[B, S]`; True = keep.
        places: Places `[B, 1]`, the same for all candidates.
        trace: Gets what the attention records.

    Returns:
        float `[B, C, d]`.

    Differs from the paper:
        The residuals of both halves, which section 3.3 does not write.
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward_multiplier: int = 3,
        **kwargs: Any,
    ) -> None:
        # The features of places stay float32; rows are cast by `call`.
        super().__init__(autocast=False, **kwargs)
        self.attention: Attention = deserialized(attention)
        self.feed_forward_multiplier = feed_forward_multiplier

    def build(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> None:
        policy = self.dtype_policy
        width = candidates_shape[-1]
        self.attention_norm = keras.layers.RMSNormalization(
            name="attention_norm", dtype=policy
        )
        self.feed_forward_norm = keras.layers.RMSNormalization(
            name="feed_forward_norm", dtype=policy
        )
        self.feed_forward = SwiGLU(
            self.feed_forward_multiplier * width,
            name="feed_forward",
            dtype=policy,
        )
        for layer in (
            self.attention_norm,
            self.feed_forward_norm,
            self.attention,
            self.feed_forward,
        ):
            layer.build((None, None, width))
        self.built = True

    def encode(
        self,
        behaviors: Tensor,
        user: Tensor,
        plan: Plan,
        *,
        is_last: bool,
        trace: Trace | None = None,
    ) -> tuple[Tensor | None, Encoded]:
        """Passes the behaviours through the block.

        Args:
            behaviors: float `[B, L, d]`.
            user: float `[B, d]`, u_c.
            plan: What `attention.plan` returned.
            is_last: Whether no later block will read the behaviours: their
                rows are not computed then.
            trace: Gets what the attention of the behaviors records.

        Returns:
            The behaviours' rows `[B, L, d]` (`None` if `is_last`), and the
            keys and values that candidates will read.
        """
        behaviors = ops.cast(behaviors, self.compute_dtype)
        hidden = self.attention_norm(behaviors)
        encoded = self.attention.encode(hidden, self.attention_norm(user), plan)
        if is_last:
            return None, encoded
        attended = self.attention.read_history(
            hidden, encoded, plan, trace=trace
        )
        return self._feed_forward(behaviors + attended), encoded

    def call(
        self,
        candidates: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        key_mask: Tensor,
        places: Places,
        trace: Trace | None = None,
    ) -> Tensor:
        candidates = ops.cast(candidates, self.compute_dtype)
        attended = self.attention(
            self.attention_norm(candidates),
            keys,
            values,
            features,
            key_mask,
            places,
            trace=trace,
        )
        return self._feed_forward(candidates + attended)

    def _feed_forward(self, rows: Tensor) -> Tensor:
        return rows + self.feed_forward(self.feed_forward_norm(rows))

    def compute_output_shape(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> Any:
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "attention": serialized(self.attention),
            "feed_forward_multiplier": self.feed_forward_multiplier,
        }
