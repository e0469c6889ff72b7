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
