"""Time fields of a behavior and of a request, by Python's calendar."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any


def hour(time: int, zone: datetime.tzinfo) -> int:
    """Hour of day, the first one 1; 0 for padding."""
    if time == 0:
        return 0
    return 1 + datetime.datetime.fromtimestamp(time, zone).hour


def weekday(time: int, zone: datetime.tzinfo) -> int:
    """Day of the week, Monday 1; 0 for padding."""
    if time == 0:
        return 0
    return datetime.datetime.fromtimestamp(time, zone).isoweekday()


def log2(seconds: int) -> int:
    """Exact `floor(log2(max(seconds, 1)))`."""
    return max(seconds, 1).bit_length() - 1


def behavior_ids(
    names: Sequence[str],
    times: Sequence[int],
    position: int,
    request_time: int,
    zone: datetime.tzinfo,
) -> dict[str, int]:
    """Ids of the time fields of one behavior, by name.

    Args:
        names: All time fields.
        times: Times `[L]` of the history, left-padded with 0.
        position: The behavior's.
        request_time: That of the request.
        zone: The data set's time zone.
    """
    time = times[position]
    before = times[position - 1] if position > 0 else 0
    gap = 2 + log2(time - before) if before else 1
    every = {
        "behavior_hour": hour(time, zone),
        "behavior_weekday": weekday(time, zone),
        "behavior_gap": gap if time else 0,
        "gap_to_request": 1 + log2(request_time - time) if time else 0,
    }
    in_order = [name for name in names if name != "gap_to_request"]
    in_order += [name for name in names if name == "gap_to_request"]
    return {name: every[name] for name in in_order if name in every}


def request_ids(
    names: Sequence[str], request_time: int, zone: datetime.tzinfo
) -> dict[str, int]:
    """Ids of the time fields of a request, by name."""
    every = {
        "request_hour": hour(request_time, zone),
        "request_weekday": weekday(request_time, zone),
    }
    return {name: every[name] for name in names if name in every}


def embed_times(
    tables: Mapping[str, Any], ids: Mapping[str, int]
) -> list[float]:
    """Embeddings of time fields, side by side."""
    numbers: list[float] = []
    for name, row in ids.items():
        kind = name.partition("_")[2]
        table = name if name == "gap_to_request" else kind
        numbers.extend(tables[f"time_{table}"][row])
    return numbers
