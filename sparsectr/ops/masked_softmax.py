"""A softmax that is exactly zero where nothing may be read."""

from collections.abc import Callable

from keras import ops

from sparsectr.ops.tensor import Tensor

Numerators = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From logits, mask and the axis of heads, what `masked_exponentials` gives;
see `sparsectr.layers.sink.sink`."""

MASKED_LOGIT = -1e30
"""Logit of a masked key: finite, so that no gradient becomes NaN."""


def masked_exponentials(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The numerators of a softmax restricted to `mask`, and their sum.

    Whoever adds up values with them divides the sum of the values by the sum
    of the numerators: one division a query instead of one a key.

    Args:
        logits: float tensor `[..., S]`.
        mask: bool tensor that broadcasts to `logits`; True = keep.

    Returns:
        float32 tensor like `logits`, at most 1; and float32 `[..., 1]`, at
        least 1, infinite for a row without a valid key.

    Numerics:
        float32 throughout, whatever the dtype of `logits`.
    """
    logits = ops.cast(logits, "float32")
    logits = ops.where(mask, logits, MASKED_LOGIT)
    # Of no keys at all there is no maximum, and of no rows neither.
    initial = None if all(logits.shape) else MASKED_LOGIT
    highest = ops.max(logits, axis=-1, keepdims=True, initial=initial)
    highest = ops.stop_gradient(highest)
    # Beside a valid key a masked one gets exactly 0 here. A row without any
    # gets ones, which its total turns into 0: a second mask of all weights
    # would take longer than the exponentials do.
    weights = ops.exp(logits - highest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    has_key = ops.any(mask, axis=-1, keepdims=True)
    return weights, ops.where(has_key, total, float("inf"))


def exponentials_beside_sink(
    logits: Tensor, mask: Tensor, sink: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The numerators of a softmax with one more logit, and the whole sum.

        p_j = exp(z_j) / (exp(s) + sum_i exp(z_i))

    Args:
        logits: float tensor `[..., S]`.
        mask: bool tensor that broadcasts to `logits`; True = keep.
        sink: s, float32, broadcasts to `[..., 1]`. Its own weight is what the
            others leave of 1.

    Returns:
        float32 tensor like `logits`, at most 1, 0 where masked; and float32
        `[..., 1]`, at least 1.

    Numerics:
        float32 throughout, whatever the dtype of `logits`.
    """
    logits = ops.cast(logits, "float32")
    logits = ops.where(mask, logits, MASKED_LOGIT)
    initial = None if all(logits.shape) else MASKED_LOGIT
    highest = ops.max(logits, axis=-1, keepdims=True, initial=initial)
    highest = ops.stop_gradient(ops.maximum(highest, sink))
    # Without a valid key the highest is s: all others get exactly 0.
    weights = ops.exp(logits - highest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights, total + ops.exp(sink - highest)
