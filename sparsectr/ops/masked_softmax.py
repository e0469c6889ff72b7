"""A softmax that is exactly zero where nothing may be read."""

from typing import Any

from keras import ops

MASKED_LOGIT = -1e30
"""Logit of a masked key: finite, so that no gradient becomes NaN."""


def masked_exponentials(logits: Any, mask: Any) -> tuple[Any, Any]:
    """The numerators of `masked_softmax`, and their sum.

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
    highest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    # Beside a valid key a masked one gets exactly 0 here. A row without any
    # gets ones, which its total turns into 0: a second mask of all weights
    # would take longer than the exponentials do.
    weights = ops.exp(logits - highest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    has_key = ops.any(mask, axis=-1, keepdims=True)
    return weights, ops.where(has_key, total, float("inf"))


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
    weights, total = masked_exponentials(logits, mask)
    return weights / total
