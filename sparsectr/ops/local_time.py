"""Local time in a time zone, in the graph."""

import functools

import numpy as np
import numpy.typing as npt
from keras import ops

from sparsectr.ops.tensor import Tensor
from sparsectr.time_zone import LATEST_TIME, TimeZone

Table = tuple[npt.NDArray[np.int32], ...]


def local_time(time: Tensor, zone: TimeZone) -> Tensor:
    """Returns what clocks in a time zone show.

    Time is cut into spans of a power of two of seconds, so long that no span
    has two changes of the offset: one look-up by the span, which is a shift,
    is exact, and as cheap on a device as on a host. A binary search would
    compare with every change in XLA.

    Args:
        time: int64 tensor, Unix seconds.
        zone: The time zone.

    Returns:
        int64 tensor like `time`: seconds since 1970-01-01 00:00 by a clock
        there. Before 1970 and from 2100 on, by the offset of then.
    """
    if zone.is_fixed:
        return time + zone.offsets[0][1]
    bits, (change, before, after) = _spans(zone)
    inside = ops.clip(time, 0, LATEST_TIME - 1)
    span = ops.right_shift(inside, bits)
    rest = ops.cast(inside - ops.left_shift(span, bits), "int32")
    offset = ops.where(
        rest < ops.take(change, span),
        ops.take(before, span),
        ops.take(after, span),
    )
    return time + ops.cast(offset, time.dtype)


@functools.cache
def _spans(zone: TimeZone) -> tuple[int, Table]:
    """Returns the spans of a zone that is not fixed.

    Returns:
        The binary logarithm of their length, and three tables, int32 `[number
        of spans]`: the second within the span at which the offset changes,
        the offset before and that after it; without a change the two are one.
    """
    starts, offsets = np.array(zone.offsets, np.int64).T
    inside = (starts > 0) & (starts < LATEST_TIME)
    changes = starts[inside]
    bits = 30
    # Changes are a day apart: at the latest, spans of 2^16 seconds hold one.
    while len(np.unique(changes >> bits)) < len(changes):
        bits -= 1
    first = np.arange((LATEST_TIME >> bits) + 1) << bits

    def offset_at(time: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        place = np.searchsorted(starts[1:], time, side="right")
        return offsets[place].astype(np.int32)

    change = np.zeros(len(first), np.int32)
    change[changes >> bits] = changes & ((1 << bits) - 1)
    return bits, (change, offset_at(first), offset_at(first + change))
