"""The three quantities of RelTemporal, before the factor of each head.

Axes: B batch, Q queries, S keys.
"""

import math

from keras import ops

from sparsectr.ops.local_time import local_time
from sparsectr.ops.places import Places
from sparsectr.ops.runtime_one import runtime_one
from sparsectr.ops.tensor import Tensor
from sparsectr.time_zone import SECONDS_PER_DAY, TimeZone

SECONDS_PER_HOUR = 3600

_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127


def is_weekend(time: Tensor, zone: TimeZone) -> Tensor:
    """Whether a time is a Saturday or a Sunday where the data comes from.

    Args:
        time: int64 tensor, Unix seconds.
        zone: The data set's time zone.

    Returns:
        bool tensor like `time`.
    """
    day = local_time(time, zone) // SECONDS_PER_DAY
    # Day 0, 1970-01-01, was a Thursday; 5 and 6 are Saturday and Sunday.
    return (day + 3) % 7 >= 5


def floor_log2(half: Tensor) -> Tensor:
    """Exact `floor(log2(max(value, 1)))` of `half = value // 2`.

    Clearing every bit that stands below another set bit leaves a number
    `y` with `2^k <= y < 1.5 * 2^k`: rounding it to float32 cannot reach the
    next power of two, so that the exponent of the float is `k`. A logarithm
    would say the same and take several times as long.

    Args:
        half: int32 tensor, at least 0.

    Returns:
        float32 tensor of whole numbers, like `half`.
    """
    cleared = ops.bitwise_and(half, ops.bitwise_not(ops.right_shift(half, 1)))
    # `view` wants to know the size of the last axis.
    number = ops.expand_dims(ops.cast(cleared, "float32"), -1)
    bits = ops.squeeze(ops.view(number, "int32"), -1)
    # That of a value is one more than that of its half. The bits of 0, the
    # half of 0 and 1, are all 0.
    exponent = ops.right_shift(bits, _MANTISSA_BITS) - (_EXPONENT_BIAS - 1)
    return ops.cast(ops.maximum(exponent, 0), "float32")


def hour_wave(hour: Tensor) -> Tensor:
    """`sin(pi * hour / 24)` for hours from 0 to 24.

    The Taylor series of the cosine around noon, to 1e-8: XLA's sine, made
    for any argument, takes more time than all the rest of the features.

    Args:
        hour: Integer tensor, 0 to 24.

    Returns:
        float32 tensor like `hour`.
    """
    angle = (ops.cast(hour, "float32") - 12.0) * (math.pi / 24.0)
    square = ops.square(angle)
    wave = ops.ones_like(square)
    for power in range(12, 0, -2):
        wave = 1.0 - wave * square * (1.0 / (power * (power - 1)))
    return wave


def half_gaps(query_time: Tensor, keys: Places) -> Tensor:
    """Exact differences of times, halved so that int32 holds 136 years.

    Eqs. 12 and 13 read no more of a difference than its half, rounded down:
    powers of two and hours are whole numbers of two seconds, but for the
    first.

    Args:
        query_time: int64 tensor, Unix seconds.
        keys: Places whose times broadcast with it.

    Returns:
        int32 tensor, `floor(|query_time - key time| / 2)`.
    """
    earliest = keys.time
    latest = earliest + ops.cast(keys.has_fraction, earliest.dtype)
    gap = ops.maximum(query_time - latest, earliest - query_time)
    return ops.cast(ops.right_shift(gap, 1), "int32")


def temporal_features(
    query_time: Tensor, keys: Places, zone: TimeZone
) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of Eqs. 12 to 14 that no weight enters.

    With `dt = |query_time - key time|` in seconds: `floor(log2(max(dt, 1)))`,
    `sin(pi * ((dt // 3600) mod 24) / 24)`, and 1 where one of the two is on a
    weekend and the other is not.

    Args:
        query_time: int64 `[B, Q, 1]`, Unix seconds.
        keys: Places of the keys, `[B, 1, S]` or `[B, Q, S]`.
        zone: The data set's time zone.

    Returns:
        Three float32 tensors `[B, Q, S]`.

    Numerics:
        Times are integers until the difference is taken; float32 holds Unix
        time only to 128 s. Differences are exact for times from 1970 to 2100.
    """
    half = half_gaps(query_time, keys)
    log_gap = floor_log2(half)
    wave = hour_wave((half // (SECONDS_PER_HOUR // 2)) % 24)
    weekend_differs = ops.cast(
        ops.not_equal(
            is_weekend(query_time, zone),
            is_weekend(keys.time, zone),
        ),
        "float32",
    )
    once = runtime_one(keys.time)
    return log_gap / once, wave / once, weekend_differs / once
