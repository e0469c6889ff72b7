"""The gate that fuses the branches of EvoAttention.

Axes: B batch, Q queries, H heads, d width, d_h = d / H, n branches.
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
        num_branches: n, the paper's 3 or fewer.

    Call arguments:
        branches: n float tensors `[B, Q, d]`, the heads side by side.
        trace: Gets `gate`, the weights a, float32 `[B, Q, H, n]`.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If `num_heads` is below 1 or does not divide d, or
            `num_branches` is below 1.

    Numerics:
        The softmax is float32 under every policy.

    Differs from the paper:
        Eq. 9 writes one `W_gate` of `[3 d, 3]`; Eq. 11 fuses inside each
        head, so there is one `[n d_h, n]` a head.
    """

    def __init__(
        self, num_heads: int, num_branches: int = 3, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        if num_branches < 1:
            raise ValueError(
                "`num_branches` must be at least 1. "
                f"Received: num_branches={num_branches}"
            )
        self.num_heads = num_heads
        self.num_branches = num_branches

    def build(self, branches_shape: Any) -> None:
        width = branches_shape[0][-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(
                self.num_heads,
                self.num_branches * width // self.num_heads,
                self.num_branches,
            ),
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
        logits = ops.reshape(
            logits, (batch, queries, self.num_heads, self.num_branches)
        )
        weights = _softmax_of_few(ops.cast(logits, "float32"))
        if trace is not None:
            trace.record("gate", ops.concatenate(weights, axis=-1))
        fused = sum(
            ops.cast(weight, self.compute_dtype) * ops.reshape(branch, heads)
            for weight, branch in zip(weights, branches, strict=True)
        )  # [B, Q, H, d_h]
        return ops.reshape(fused, (batch, queries, width))

    def _wide_kernels(self, width: int) -> list[Tensor]:
        """Lays the heads out block-diagonally, `[d, n H]` for each branch.

        One dense product a branch then: a batch of products as narrow as a
        head is slower, most of all its gradient.
        """
        heads, count = self.num_heads, self.num_branches
        kernel = ops.reshape(
            self.kernel, (heads, count, width // heads, 1, count)
        )
        own = ops.reshape(
            ops.eye(heads, dtype=kernel.dtype), (heads, 1, 1, heads, 1)
        )
        wide = kernel * own  # [H, n, d_h, H, n]
        return [
            ops.reshape(wide[:, branch], (width, count * heads))
            for branch in range(count)
        ]

    def compute_output_shape(self, branches_shape: Any) -> Any:
        return branches_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_branches": self.num_branches,
        }


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
