"""How often each duration occurs, gathered block by block."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.description.integer_counts import IntegerCounts

Array = npt.NDArray[Any]

_HOUR = 3600
_DAY = 24 * _HOUR

_CLASSES = {
    "0 s": 0,
    "1-2 s": 1,
    "3-9 s": 3,
    "10-29 s": 10,
    "30-59 s": 30,
    "1-2 min": 60,
    "3-9 min": 3 * 60,
    "10-29 min": 10 * 60,
    "30-59 min": 30 * 60,
    "1-2 h": _HOUR,
    "3-9 h": 3 * _HOUR,
    "10-23 h": 10 * _HOUR,
    "1-2 d": _DAY,
    "3-9 d": 3 * _DAY,
    "10-29 d": 10 * _DAY,
    "30-99 d": 30 * _DAY,
    "100 d up": 100 * _DAY,
}

CLASS_NAMES = tuple(_CLASSES)
"""Names of the duration classes that `DurationCounts.classes` counts.

A class begins at the first number and ends where the next class begins:
"1-2 h" is from 1 hour to just below 3 hours.
"""


class DurationCounts:
    """Counts of durations in seconds.

    To the second below one day and to the hour above, so that memory does
    not grow with the longest of them as it would by the second: years are a
    hundred million seconds.
    """

    def __init__(self) -> None:
        self._bins = IntegerCounts()

    def add(self, seconds: Array) -> None:
        """Adds durations, int64 seconds, none below 0."""
        hours = _DAY - 24 + seconds // _HOUR
        self._bins.add(np.where(seconds < _DAY, seconds, hours))

    @property
    def total(self) -> int:
        """How many durations were added."""
        return self._bins.total

    def classes(self) -> list[int]:
        """Returns how many durations are in each of `CLASS_NAMES`."""
        edges = [_bin(start) for start in _CLASSES.values()]
        return [
            self._bins.between(start, end)
            for start, end in zip(edges, [*edges[1:], None], strict=True)
        ]

    def percentile(self, percent: int) -> int | None:
        """Returns seconds as `IntegerCounts.percentile` does.

        From one day on they are cut off to the hour.
        """
        found = self._bins.percentile(percent)
        if found is None or found < _DAY:
            return found
        return (found - _DAY + 24) * _HOUR


def _bin(seconds: int) -> int:
    return seconds if seconds < _DAY else _DAY - 24 + seconds // _HOUR
