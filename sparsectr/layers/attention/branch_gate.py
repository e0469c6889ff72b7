"""The gate that fuses the three branches of EvoAttention.

Axes: B batch, Q queries, H heads, d width, d_h = d / H.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


@keras.saving.register_keras_serializable(package="sparsectr")
class BranchGate(keras.layers.Layer):
    """Fuses global, transition and local outputs head by head (Eqs. 9, 10).

        a = softmax([o_global, o_transition, o_local] W[h])
        o = a_1 o_global + a_2 o_transition + a_3 o_local

    Args:
        num_heads: H.

    Call arguments:
        branches: Three float tensors `[B, Q, d]`, the heads side by side.
        trace: Gets `gate`, the weights a, float32 `[B, Q, H, 3]`.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If `num_heads` is below 1 or does not divide d.

    Numerics:
        The softmax is float32 under every policy.

    Differs from the paper:
        Eq. 9 writes one `W_gate` of `[3 d, 3]`; Eq. 11 fuses inside each
        head, so there is one `[3 d_h, 3]` a head.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads

    def build(self, branches_shape: Any) -> None:
        width = branches_shape[0][-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_heads, 3 * width // self.num_heads, 3),
            initializer="glorot_uniform",
        )
        self.built = True

    def call(
        self, branches: list[Tensor], trace: Trace | None = None
    ) -> Tensor:
        batch, queries, width = ops.shape(branches[0])
        head_width = width // self.num_heads
        heads = (batch, queries, self.num_heads, head_width)
        logits = sum(
            ops.matmul(branch, kernel)
            for branch, kernel in zip(
                branches, self._wide_kernels(width), strict=True
            )
        )
        logits = ops.reshape(logits, (batch, queries, self.num_heads, 3))
        weights = _softmax_of_few(ops.cast(logits, "float32"))
        if trace is not None:
            trace.record("gate", ops.concatenate(weights, axis=-1))
        fused = sum(
            ops.cast(weight, self.compute_dtype) * ops.reshape(branch, heads)
            for weight, branch in zip(weights, branches, strict=True)
        )  # [B, Q, H, d_h]
        return ops.reshape(fused, (batch, queries, width))

    def _wide_kernels(self, width: int) -> list[Tensor]:
        """Lays the heads out block-diagonally, `[d, 3 H]` for each branch.

        One dense product a branch then: a batch of products as narrow as a
        head is slower, most of all its gradient.
        """
        heads = self.num_heads
        kernel = ops.reshape(self.kernel, (heads, 3, width // heads, 1, 3))
        own = ops.reshape(
            ops.eye(heads, dtype=kernel.dtype), (heads, 1, 1, heads, 1)
        )
        wide = kernel * own  # [H, 3, d_h, H, 3]
        return [
            ops.reshape(wide[:, branch], (width, 3 * heads))
            for branch in range(3)
        ]

    def compute_output_shape(self, branches_shape: Any) -> Any:
        return branches_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}


def _softmax_of_few(logits: Tensor) -> list[Tensor]:
    """Returns the softmax `[..., n]` as n times `[..., 1]`.

    On a CPU a softmax along so short an axis takes five times as long.
    """
    parts = ops.split(logits, logits.shape[-1], axis=-1)
    highest = parts[0]
    for part in parts[1:]:
        highest = ops.maximum(highest, part)
    highest = ops.stop_gradient(highest)
    powers = [ops.exp(part - highest) for part in parts]
    share = 1.0 / sum(powers[1:], powers[0])
    return [power * share for power in powers]
