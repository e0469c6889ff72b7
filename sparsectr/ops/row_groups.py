"""Rows of a history in groups that each attend to a few keys in common.

Attention to a window or to every s-th key is then a batch of small dense
products: there is no gather and no mask of all pairs. All groups are aligned
to the newest row, so that padding on the left moves none.

Axes: B batch, L history length, n groups, c rows of a group, s stride.
"""

from keras import ops

from sparsectr.ops.places import Places
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor


def newest_rows(sequence: Tensor, count: int) -> Tensor:
    """Returns the last `count` rows, zeros before those that there are.

    Args:
        sequence: Tensor `[B, L, ...]`.
        count: How many.

    Returns:
        Tensor `[B, count, ...]`.
    """
    length = sequence.shape[1]
    if length is None:
        return pad_rows(sequence, count)[:, -count:]
    if length < count:
        sequence = pad_rows(sequence, count - length)
    return sequence[:, sequence.shape[1] - count :]


def row_blocks(sequence: Tensor, size: int) -> Tensor:
    """Cuts a history into blocks of neighbours, at least one.

    Args:
        sequence: Tensor `[B, L, ...]`.
        size: c.

    Returns:
        Tensor `[B, n, c, ...]`; what is missing in the first block is 0.
    """
    length = ops.shape(sequence)[1]
    count = (length + size - 1) // size
    count = max(count, 1) if isinstance(count, int) else ops.maximum(count, 1)
    padded = pad_rows(sequence, count * size - length)
    return ops.reshape(padded, (-1, count, size, *sequence.shape[2:]))


def with_previous(blocks: Tensor) -> Tensor:
    """Puts before each block the one before it, and zeros before the first.

    Args:
        blocks: Tensor `[B, n, c, ...]`.

    Returns:
        Tensor `[B, n, 2 c, ...]`.
    """
    count = ops.shape(blocks)[1]
    previous = slice_axis(pad_rows(blocks, 1), 0, count)
    return ops.concatenate([previous, blocks], axis=2)


def stride_classes(sequence: Tensor, stride: int) -> Tensor:
    """Puts every s-th row side by side, counted from the newest.

    Args:
        sequence: Tensor `[B, L, ...]`.
        stride: s.

    Returns:
        Tensor `[B, s, n, ...]`; the newest row is the last of the last class.
    """
    blocks = row_blocks(sequence, stride)  # [B, n, s, ...]
    rest = range(3, len(blocks.shape))
    return ops.transpose(blocks, (0, 2, 1, *rest))  # [B, s, n, ...]


def joined_classes(classes: Tensor, length: Tensor | int) -> Tensor:
    """Undoes `stride_classes`, `[B, s, n, ...]` to `[B, L, ...]`."""
    rest = range(3, len(classes.shape))
    return joined_blocks(ops.transpose(classes, (0, 2, 1, *rest)), length)


def joined_blocks(blocks: Tensor, length: Tensor | int) -> Tensor:
    """Undoes `row_blocks`, `[B, n, c, ...]` to `[B, L, ...]`."""
    _, count, size = ops.shape(blocks)[:3]
    rows = ops.reshape(blocks, (-1, count * size, *blocks.shape[3:]))
    return slice_axis(rows, count * size - length)


def flat_groups(groups: Tensor) -> Tensor:
    """Makes each group a batch row: `[B, n, c, ...]` to `[B n, c, ...]`."""
    batch, count, size = ops.shape(groups)[:3]
    return ops.reshape(groups, (batch * count, size, *groups.shape[3:]))


def full_places(places: Places) -> Places:
    """Returns the same places with a position for every request."""
    position = places.position + ops.zeros_like(places.time, dtype="int32")
    return places._replace(position=position)


def window_mask(queries: Places, keys: Places, size: int) -> Tensor:
    """Which keys are among the last `size` positions up to each query.

    Args:
        queries: Places `[B, Q]`.
        keys: Places `[B, S]`.
        size: How far back a query reads, itself counted.

    Returns:
        bool `[B, Q, S]`; True = keep.
    """
    back = ops.expand_dims(keys.position, 1) - ops.expand_dims(
        queries.position, 2
    )
    near = ops.logical_and(back >= 0, back < size)
    return ops.logical_and(near, ops.expand_dims(keys.valid, 1))


def pad_rows(sequence: Tensor, count: Tensor | int) -> Tensor:
    """Puts `count` rows of zeros before a sequence."""
    if isinstance(count, int) and count == 0:
        return sequence
    padding = [(0, 0)] * len(sequence.shape)
    padding[1] = (count, 0)
    if sequence.dtype == "bool":
        return ops.pad(sequence, padding, constant_values=False)
    return ops.pad(sequence, padding)
