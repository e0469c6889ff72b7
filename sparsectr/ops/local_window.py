"""Attention of each behaviour to its own neighbourhood.

Axes: B batch, L history length, H heads, d width, w window.
"""

from keras import ops

from sparsectr.ops.head_attention import head_indicator
from sparsectr.ops.masked_softmax import Numerators
from sparsectr.ops.tensor import Tensor


def shift(sequence: Tensor, steps: int) -> Tensor:
    """Moves every row `steps` places towards newer, filling with zeros.

    Args:
        sequence: Tensor `[B, L, ...]`.
        steps: How far, not negative.

    Returns:
        Tensor like `sequence` whose row i is row `i - steps`, or 0.
    """
    if steps == 0:
        return sequence
    rank = len(sequence.shape)
    padding = [(0, 0)] * rank
    padding[1] = (steps, 0)
    length = ops.shape(sequence)[1]
    return ops.pad(sequence, padding)[:, :length]


def windows(sequence: Tensor, size: int) -> Tensor:
    """The last `size` elements up to each position, oldest first.

    Args:
        sequence: Tensor `[B, L]`.
        size: w, the window.

    Returns:
        Tensor `[B, L, w]`; places before the first position are 0.
    """
    return ops.stack(
        [shift(sequence, steps) for steps in reversed(range(size))], axis=-1
    )


def attend_window(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    user_key: Tensor,
    user_value: Tensor,
    bias: Tensor | None,
    mask: Tensor,
    num_heads: int,
    numerators: Numerators,
) -> Tensor:
    """Eq. 8 with Eq. 16 for behaviours: itself, the w - 1 before, the user.

    Args:
        query: float `[B, L, d]`.
        keys: float `[B, L, d]`.
        values: float `[B, L, d]`.
        user_key: float `[B, 1, d]`, or `[B, L, d]`, one a query.
        user_value: float `[B, 1, d]`.
        bias: float32 `[B, L, H, w + 1]`, the window oldest first, then the
            user; or `None`.
        mask: bool `[B, L, w + 1]`, in the same order; True = keep.
        num_heads: H.
        numerators: Of the sink: turns logits into weights.

    Returns:
        float `[B, L, d]`.

    Cost:
        O(L w d).
    """
    size = mask.shape[-1] - 1
    width = query.shape[-1]
    indicator = head_indicator(width, num_heads, query.dtype)  # [d, H]
    shifts = list(reversed(range(size)))
    logits = ops.stack(
        [
            ops.matmul(query * key, indicator)
            for key in [*(shift(keys, steps) for steps in shifts), user_key]
        ],
        axis=-1,
    )  # [B, L, H, w + 1]
    logits = ops.cast(logits, "float32") * (width // num_heads) ** -0.5
    if bias is not None:
        logits = logits + bias
    weights, total = numerators(logits, ops.expand_dims(mask, 2), 2)
    weights = ops.cast(weights / total, values.dtype)
    to_columns = ops.transpose(indicator)  # [H, d]
    outputs = [
        ops.matmul(weights[..., place], to_columns) * value
        for place, value in enumerate(
            [*(shift(values, steps) for steps in shifts), user_value]
        )
    ]  # w + 1 times [B, L, d]
    return sum(outputs[1:], outputs[0])
