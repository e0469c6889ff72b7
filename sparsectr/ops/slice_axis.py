"""Slices whose gradient is cheap."""

from keras import ops

from sparsectr.ops.tensor import Tensor


def slice_axis(
    sequence: Tensor,
    start: Tensor | int,
    end: Tensor | int | None = None,
    axis: int = 1,
) -> Tensor:
    """Returns `sequence[:, start:end]`, or the like of another axis.

    TensorFlow's gradient of brackets takes some eight times as long on a CPU
    as that of this (benchmarks/LOG.md). It is for rows that gradients flow
    through; times and masks may stay with brackets.

    Args:
        sequence: Tensor of any rank above `axis`.
        start: Where it begins, from 0.
        end: Where it ends, at most the size; the size if not given.
        axis: Along which it is cut.
    """
    sizes = list(ops.shape(sequence))
    begin: list[Tensor | int] = [0] * len(sizes)
    begin[axis] = start
    sizes[axis] = (sizes[axis] if end is None else end) - start
    return ops.slice(sequence, begin, sizes)


def last_rows(sequence: Tensor, count: int) -> Tensor:
    """Returns `sequence[:, -count:]`, with a gradient as cheap as the slice.

    Their number is known before the pass, also where that of all is not.

    Args:
        sequence: Tensor `[B, L, ...]`.
        count: How many, at most L.
    """
    sizes = list(ops.shape(sequence))
    begin: list[Tensor | int] = [0] * len(sizes)
    begin[1] = sizes[1] - count
    sizes[1] = count
    # Of a slice TensorFlow keeps no size if one of them is unknown.
    return ops.reshape(ops.slice(sequence, begin, sizes), sizes)
