"""Times: TimeChunking (3.4.1) and RelTemporal (Eqs. 12 to 15).

Times are Unix seconds in Python integers, and means of them in fractions:
neither ever rounds.
"""

import datetime
import itertools
import math
import re
import zoneinfo
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Time = int | Fraction

SECONDS_PER_HOUR = 3600


def time_chunks(
    times: Sequence[int] | NDArray[np.int64], num_chunks: int
) -> list[tuple[int, int]]:
    """Cuts one history into chunks at its largest gaps (3.4.1).

    The cut between padding and the first behaviour is not counted among the
    `num_chunks - 1` cuts. Of equal gaps the more recent one is cut first.

    Args:
        times: Times `[L]`, never descending, left-padded with 0.
        num_chunks: |P|, the number of chunks.

    Returns:
        Half-open ranges (start, end) of positions, oldest first. Empty
        chunks are left out, so a short history gives fewer than |P|.
    """
    times = [int(time) for time in times]
    valid = [position for position, time in enumerate(times) if time != 0]
    if not valid:
        return []
    # A gap carries the position before which it would cut.
    gaps = [
        (times[position] - times[position - 1], position)
        for position in valid[1:]
    ]
    widest_first = sorted(gaps, reverse=True)
    cuts = sorted(position for _, position in widest_first[: num_chunks - 1])
    bounds = [valid[0], *cuts, len(times)]
    return list(itertools.pairwise(bounds))


def chunk_time(times: Sequence[int] | NDArray[np.int64]) -> Fraction:
    """Mean time of a chunk's behaviours (3.5.4), exact."""
    return Fraction(sum(int(time) for time in times), len(times))


def is_weekend(time: Time, zone: datetime.tzinfo) -> bool:
    """W(t) of Eq. 14: Saturday or Sunday in the data set's own time zone."""
    return (
        datetime.datetime.fromtimestamp(math.floor(time), zone).weekday() >= 5
    )


def zone_of(name: str) -> datetime.tzinfo:
    """Returns Python's own time zone: "UTC+5:30" or "Europe/Copenhagen"."""
    fixed = re.fullmatch(r"UTC([+-])(\d+)(?::(\d\d))?", name)
    if fixed is None:
        return zoneinfo.ZoneInfo(name)
    sign, hours, minutes = fixed.groups()
    offset = datetime.timedelta(hours=int(hours), minutes=int(minutes or 0))
    return datetime.timezone(-offset if sign == "-" else offset)


def initial_slopes(num_heads: int) -> NDArray[np.float64]:
    """Initial bias coefficients `[H]`: (2^(-8/H))^(h-1) for head h (3.5.1)."""
    return np.array(
        [
            (2.0 ** (-8.0 / num_heads)) ** (h - 1)
            for h in range(1, num_heads + 1)
        ]
    )


def temporal_bias(
    query_time: Time,
    key_time: Time,
    slopes_time: ArrayLike,
    slopes_hour: ArrayLike,
    slopes_weekend: ArrayLike,
    zone: datetime.tzinfo,
) -> NDArray[np.float64]:
    """RelTemporal of one query and one key, for all heads (Eqs. 12 to 15).

    Args:
        query_time: t_i, in Unix seconds.
        key_time: t_j, in Unix seconds.
        slopes_time: s_1 `[H]`.
        slopes_hour: s_2 `[H]`.
        slopes_weekend: s_3 `[H]`.
        zone: Time zone that decides what a weekend is.

    Returns:
        The bias of each head, `[H]`.
    """
    difference = abs(Fraction(query_time) - Fraction(key_time))
    bucket = 0
    while 2 ** (bucket + 1) <= difference:
        bucket += 1
    hour = (difference // SECONDS_PER_HOUR) % 24
    differs = is_weekend(query_time, zone) != is_weekend(key_time, zone)
    bias1 = -bucket * np.asarray(slopes_time, np.float64)  # Eq. 12
    bias2 = -math.sin(math.pi * hour / 24) * np.asarray(
        slopes_hour, np.float64
    )  # Eq. 13
    bias3 = -int(differs) * np.asarray(slopes_weekend, np.float64)  # Eq. 14
    return bias1 + bias2 + bias3  # Eq. 15
