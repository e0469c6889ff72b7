"""Attention of each behaviour to its own neighbourhood.

Axes: B batch, L history length, H heads, d width, w window, U other keys.
"""

from collections.abc import Sequence

from keras import ops

from sparsectr.ops.head_attention import head_indicator
from sparsectr.ops.masked_softmax import Numerators
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


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
    return slice_axis(ops.pad(sequence, padding), 0, length)


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
    shared_keys: Sequence[Tensor],
    shared_values: Tensor,
    bias: Tensor | None,
    mask: Tensor,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
) -> Tensor:
    """Eq. 8 with Eq. 16 for behaviours: itself, the w - 1 before, and others.

    The others are keys that all behaviours share, as the user's.

    Args:
        query: float `[B, L, d]`.
        keys: float `[B, L, d]`.
        values: float `[B, L, d]`.
        shared_keys: U at least 1, each float `[B, 1, d]`, or `[B, L, d]` for
            one a query.
        shared_values: float `[B, U, d]`.
        bias: float32 `[B, L, H, w + U]`, the window oldest first, then the
            others; or `None`.
        mask: bool `[B, L, w + U]`, in the same order; True = keep.
        num_heads: H.
        numerators: Of the sink: turns logits into weights.
        trace: Gets `weights`, float32 `[B, L, H, w + U]`, in the same order,
            and `logits` likewise.

    Returns:
        float `[B, L, d]`.

    Cost:
        O(L (w + U) d).
    """
    num_shared = len(shared_keys)
    size = mask.shape[-1] - num_shared
    width = query.shape[-1]
    indicator = head_indicator(width, num_heads, query.dtype)  # [d, H]

    def own(rows: Tensor) -> list[Tensor]:
        """Returns the window, oldest first, w times [B, L, d]."""
        return [shift(rows, steps) for steps in reversed(range(size))]

    logits = ops.stack(
        [
            ops.matmul(query * key, indicator)
            for key in [*own(keys), *shared_keys]
        ],
        axis=-1,
    )  # [B, L, H, w + U]
    logits = ops.cast(logits, "float32") * (width // num_heads) ** -0.5
    if bias is not None:
        logits = logits + bias
    weights, total = numerators(logits, ops.expand_dims(mask, 2), 2)
    weights = weights / total
    if trace is not None:
        trace.record("weights", weights)
        trace.record("logits", logits)
    weights = ops.cast(weights, values.dtype)
    to_columns = ops.transpose(indicator)  # [H, d]
    others = ops.split(shared_values, num_shared, axis=1)
    outputs = [
        ops.matmul(weight, to_columns) * value
        for weight, value in zip(
            ops.unstack(weights, size + num_shared, axis=-1),
            [*own(values), *others],
            strict=True,
        )
    ]  # w + U times [B, L, d]
    return sum(outputs[1:], outputs[0])
