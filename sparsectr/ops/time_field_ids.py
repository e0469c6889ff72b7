"""Ids of the time fields, from the times of a request.

Axes: B batch, L history length.
"""

from keras import ops

from sparsectr.ops.local_time import local_time
from sparsectr.ops.temporal_features import SECONDS_PER_HOUR, floor_log2
from sparsectr.ops.tensor import Tensor
from sparsectr.time_zone import SECONDS_PER_DAY, TimeZone


def time_field_ids(
    name: str, time: Tensor, zone: TimeZone, request_time: Tensor | None = None
) -> Tensor:
    """Returns the ids of one time field.

    Args:
        name: One of `sparsectr.time_fields.TIME_FIELDS`.
        time: int64 `[B, L]` of behaviors, left-padded with 0, or `[B]` of
            requests; Unix seconds.
        zone: The data set's time zone.
        request_time: int64 `[B]`, for `gap_to_request`.

    Returns:
        int32 like `time`; 0 for padding. From 1 on hours, weekdays (Monday
        first) and logarithms of gaps; those of the gap to the behavior before
        begin at 2, and 1 is for the first one, which has none before it.
    """
    if name.endswith("_hour"):
        ids = 1 + local_time(time, zone) // SECONDS_PER_HOUR % 24
    elif name.endswith("_weekday"):
        # Day 0, 1970-01-01, was a Thursday.
        ids = 1 + (local_time(time, zone) // SECONDS_PER_DAY + 3) % 7
    elif name == "behavior_gap":
        before = ops.pad(time, [(0, 0), (1, 0)])[:, :-1]
        ids = ops.where(before > 0, 2 + log_gap(before, time), 1)
    else:
        ids = 1 + log_gap(time, ops.expand_dims(request_time, 1))
    return ops.where(time > 0, ops.cast(ids, "int32"), 0)


def log_gap(earlier: Tensor, later: Tensor) -> Tensor:
    """Returns `floor(log2(max(later - earlier, 1)))`, exact.

    Args:
        earlier: int64 tensor, Unix seconds.
        later: int64 tensor, which broadcasts with it.

    Returns:
        int32 tensor.
    """
    gap = ops.maximum(later - earlier, 0)
    half = ops.cast(ops.right_shift(gap, 1), "int32")
    return ops.cast(floor_log2(half), "int32")
