"""Counts by day, gathered so that a table or a picture can hold them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.description.store_statistics import StoreStatistics
from data_pipelines.stores.shard import SPLITS

Array = npt.NDArray[Any]

_MAX_PERIODS = 62

_TYPES = {
    "day": "datetime64[D]",
    "month": "datetime64[M]",
    "year": "datetime64[Y]",
}


class Periods(NamedTuple):
    """Counts of successive periods, none left out.

    Attributes:
        unit: "day"; "month" or "year" where the days are more than 62.
        edges: datetime64[D] `[num_periods + 1]`, in the data set's own time
            zone.
        behaviors: int64 `[num_periods]`.
        requests: int64 `[num_periods]` of each split.
        candidates: Likewise.
        clicks: Likewise, the candidates that were clicked.
    """

    unit: str
    edges: Array
    behaviors: Array
    requests: dict[str, Array]
    candidates: dict[str, Array]
    clicks: dict[str, Array]


def count_by_period(statistics: StoreStatistics) -> Periods:
    """Returns the counts by day, month or year, over all that happened."""
    by_day = [statistics.behaviors_by_day.counts]
    for split in statistics.splits.values():
        by_day.append(split.requests_by_day.counts)
    days = np.unique(np.concatenate([np.flatnonzero(x) for x in by_day]))
    if len(days) == 0:
        days = np.ones(1, np.int64)
    date = _date(days)
    unit = next(
        (u for u in ("day", "month") if _distance(date, u) < _MAX_PERIODS),
        "year",
    )
    period = date.astype(_TYPES[unit])
    num_periods = _distance(date, unit) + 1

    def count(by_day: Array) -> Array:
        place = _date(np.arange(len(by_day))).astype(period.dtype) - period[0]
        # Days before the first are empty, and their place is negative.
        place = np.maximum(place.astype(int), 0)
        # float64 is exact: counts are far below 2^53.
        return np.bincount(place, by_day, num_periods).astype(np.int64)

    splits = statistics.splits
    return Periods(
        unit=unit,
        edges=(period[0] + np.arange(num_periods + 1)).astype("datetime64[D]"),
        behaviors=count(statistics.behaviors_by_day.counts),
        requests={s: count(splits[s].requests_by_day.counts) for s in SPLITS},
        candidates={
            s: count(splits[s].candidates_by_day.counts) for s in SPLITS
        },
        clicks={s: count(splits[s].clicks_by_day.counts) for s in SPLITS},
    )


def _date(day: Array) -> Array:
    return np.datetime64("1970-01-01") + (day - 1)


def _distance(date: Array, unit: str) -> int:
    """Returns how many days, months or years the last is after the first."""
    period = date.astype(_TYPES[unit])
    return int((period[-1] - period[0]).astype(int))
