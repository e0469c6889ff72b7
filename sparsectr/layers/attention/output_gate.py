"""A gate on what attention has read, so that it can say "nothing".

Axes: B batch, Q queries, H heads, d width, d_h = d / H.
"""

import math
from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace

_INITIAL_GATE = 0.9


@keras.saving.register_keras_serializable(package="sparsectr")
class OutputGate(keras.layers.Layer):
    """Closes heads, or single columns, by what the query is.

        g = sigmoid(x W_g + b)
        o = o * g

    before W_O: Z. Qiu et al., "Gated attention for large language models"
    (2025). The softmax of `BranchGate` only shares out among branches; here
    all may be closed.

    Args:
        num_heads: H.
        by_element: Whether each column has a gate of its own, and not only
            each head.

    Call arguments:
        attended: float `[B, Q, d]`, the heads side by side.
        rows: float `[B, Q, d]`, x: the block's normalized rows of the
            queries, before W_Q.
        trace: Gets `output_gate`, g, float32 `[B, Q, H]` or `[B, Q, d]`.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If `num_heads` does not divide d.

    Numerics:
        The sigmoid is float32 under every policy.

    Cost:
        O(Q d H), or O(Q d^2) by element.

    Differs from the source:
        b starts at ln 9 and W_g small, so that every gate starts near 0.9 and
        the attention nearly as it would be without.
    """

    def __init__(
        self, num_heads: int, by_element: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.by_element = by_element

    def build(self, attended_shape: Any, rows_shape: Any = None) -> None:
        del rows_shape  # the same
        width = attended_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        open_logit = math.log(_INITIAL_GATE / (1.0 - _INITIAL_GATE))
        self.projection = keras.layers.Dense(
            width if self.by_element else self.num_heads,
            # Logits of normalized rows then differ by some 0.1.
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=0.1 * width**-0.5
            ),
            bias_initializer=keras.initializers.Constant(open_logit),
            name="projection",
            dtype=self.dtype_policy,
        )
        self.projection.build((None, None, width))
        self.built = True

    def call(
        self, attended: Tensor, rows: Tensor, trace: Trace | None = None
    ) -> Tensor:
        gate = ops.sigmoid(ops.cast(self.projection(rows), "float32"))
        if trace is not None:
            trace.record("output_gate", gate)
        gate = ops.cast(gate, self.compute_dtype)
        if self.by_element:
            return attended * gate
        batch, queries, width = ops.shape(attended)
        heads = (batch, queries, self.num_heads, width // self.num_heads)
        gated = ops.reshape(attended, heads) * ops.expand_dims(gate, 3)
        return ops.reshape(gated, (batch, queries, width))

    def compute_output_shape(
        self, attended_shape: Any, rows_shape: Any = None
    ) -> Any:
        return attended_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "by_element": self.by_element,
        }
