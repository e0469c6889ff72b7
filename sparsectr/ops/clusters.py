"""Behaviors of a group, a few at a time, as clusters.

Axes: B batch, L history length, w width.
"""

from typing import NamedTuple

from keras import ops

from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.tensor import Tensor

_SINGLE = 1 << 62
"""From here on keys are those of singles; groups are below."""


class Clusters(NamedTuple):
    """Which behaviors of a history belong together.

    There are L slots for clusters, of which as many are empty as clusters
    have saved.

    Attributes:
        slot: int32 `[B, L]`, the slot of each column of the history.
        size: int32 `[B, L]`, by slot: its behaviors, 0 for none.
    """

    slot: Tensor
    size: Tensor


def make_clusters(
    group: Tensor, is_single: Tensor, valid: Tensor, max_size: int
) -> Clusters:
    """Cuts the behaviors of each group, in their order, after every few.

    Args:
        group: int64 `[B, L]`, at least 0 and below 2**62.
        is_single: bool `[B, L]`, True for a behavior that stays by itself.
        valid: bool `[B, L]`; False for padding, which is in no cluster.
        max_size: The most behaviors of a cluster.

    Cost:
        A stable sort of L numbers.
    """
    sizes = ops.shape(group)
    place = ops.broadcast_to(
        ops.expand_dims(ops.arange(sizes[1], dtype="int32"), 0), sizes
    )
    keys = ops.where(is_single, _SINGLE + ops.cast(place, "int64"), group)
    keys = ops.where(valid, keys, -1)
    # Of equal keys the older column comes first: the sort is a stable one.
    order = ops.cast(ops.argsort(keys, axis=-1), "int32")
    keys = gather_rows(keys, order)
    before = ops.pad(keys[:, :-1], [(0, 0), (1, 0)], constant_values=-2)
    is_first = ops.not_equal(keys, before)  # of its group
    number = ops.cumsum(ops.cast(is_first, "int32"), axis=1) - 1
    starts = _segment_max(ops.where(is_first, place, 0), number)
    rank = place - gather_rows(starts, number)
    opens = ops.equal(rank % max_size, 0)
    slot = ops.cumsum(ops.cast(opens, "int32"), axis=1) - 1
    # Back to the order of the history: numbers are moved here, so that rows
    # need not be, whose gradient would be added up in turn.
    slot = _segment_max(slot, order)
    is_valid = ops.cast(ops.expand_dims(valid, -1), "int32")
    return Clusters(slot, _segment_sum(is_valid, slot)[..., 0])


def cluster_means(rows: Tensor, clusters: Clusters) -> Tensor:
    """Returns the mean of the behaviors of each slot, 0 for an empty one.

    Args:
        rows: float `[B, L, w]`, or int64 for a mean that is rounded down.
        clusters: Of the same history.

    Returns:
        Tensor like `rows`, by slot.

    Numerics:
        Sums of floats in float32.
    """
    is_float = "float" in ops.dtype(rows)
    summed = ops.cast(rows, "float32") if is_float else rows
    sums = _segment_sum(summed, clusters.slot)  # [B, L, w]
    size = ops.expand_dims(ops.cast(clusters.size, sums.dtype), -1)
    count = ops.maximum(size, ops.ones((), sums.dtype))
    means = sums / count if is_float else sums // count
    means = ops.where(size > 0, means, ops.zeros((), means.dtype))
    return ops.cast(means, rows.dtype)


def _flat(slot: Tensor) -> Tensor:
    """Returns slots as segments of the whole batch, int32 `[B * L]`."""
    batch, length = ops.shape(slot)
    first = ops.arange(batch, dtype="int32") * length
    return ops.reshape(slot + ops.expand_dims(first, 1), (-1,))


def _segment_sum(rows: Tensor, slot: Tensor) -> Tensor:
    sizes = ops.shape(rows)
    sums = ops.segment_sum(
        ops.reshape(rows, (-1, sizes[2])), _flat(slot), sizes[0] * sizes[1]
    )
    return ops.reshape(sums, sizes)


def _segment_max(values: Tensor, slot: Tensor) -> Tensor:
    batch, length = ops.shape(values)
    highest = ops.segment_max(
        ops.reshape(values, (-1,)), _flat(slot), batch * length
    )
    return ops.reshape(highest, (batch, length))
