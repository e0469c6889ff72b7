"""A softmax that is exactly zero where nothing may be read."""

from typing import Any

from keras import ops

MASKED_LOGIT = -1e9
"""Logit of a masked key: finite, so that no gradient becomes NaN."""


def masked_softmax(logits: Any, mask: Any) -> Any:
    """Softmax over the last axis, restricted to `mask`.

    A row without a single valid key gets exactly 0 everywhere, and a zero
    gradient: neither NaN nor the mean of padding.

    Args:
        logits: float tensor `[..., S]`.
        mask: bool tensor that broadcasts to `logits`; True = keep.

    Returns:
        float32 tensor like `logits`; its rows sum to 1, or to 0.

    Numerics:
        float32 throughout, whatever the dtype of `logits`.
    """
    logits = ops.cast(logits, "float32")
    logits = ops.where(mask, logits, MASKED_LOGIT)
    highest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    weights = ops.where(mask, ops.exp(logits - highest), 0.0)
    total = ops.sum(weights, axis=-1, keepdims=True)
    # A row with a valid key has a total of at least 1, its largest weight.
    return weights / ops.maximum(total, 1.0)
