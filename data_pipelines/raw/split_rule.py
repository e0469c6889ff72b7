"""Which requests are for test: those from some second on."""

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sparsectr.time_zone import TimeZone

Times = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Distinct times of all impressions, ascending, and how often each occurs."""


class SplitRule(Protocol):
    """A rule that finds the first second of the test period."""

    @property
    def needs_times(self) -> bool:
        """Whether `resolve` reads the times."""

    def resolve(self, times: Times) -> tuple[int, str]:
        """Returns Unix seconds of the first test request, and the rule."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromTime:
    """Requests from a given second on.

    Args:
        time: Unix seconds.
        rule: The rule in words.
    """

    time: int
    rule: str
    needs_times: bool = dataclasses.field(default=False, init=False)

    def resolve(self, times: Times) -> tuple[int, str]:
        """Returns the given second."""
        del times
        return self.time, self.rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastDay:
    """Requests of the last day there is.

    Args:
        time_zone: That of the day.
    """

    time_zone: TimeZone
    needs_times: bool = dataclasses.field(default=True, init=False)

    def resolve(self, times: Times) -> tuple[int, str]:
        """Returns the first second of the last impression's day."""
        last = int(times[0][-1]) if len(times[0]) else 0
        day = self.time_zone.moment(last).date()
        time = self.time_zone.start_of_day(day)
        return time, describe_day(time, self.time_zone)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastFraction:
    """The last impressions of all; those of one second stay together.

    Args:
        fraction: Share of the impressions before the test period, at most.
        noun: What the data set calls impressions.
    """

    fraction: float
    noun: str = "impressions"
    needs_times: bool = dataclasses.field(default=True, init=False)

    def resolve(self, times: Times) -> tuple[int, str]:
        """Returns the second of the first impression after the fraction."""
        rule = (
            f"first {100 * self.fraction:g}% of all {self.noun} by time for "
            "training"
        )
        distinct, counts = times
        if not len(distinct):
            return 0, rule
        place = int(self.fraction * int(counts.sum()))
        index = int(np.searchsorted(np.cumsum(counts), place, side="right"))
        return int(distinct[min(index, len(distinct) - 1)]), rule


def describe_day(time: int, time_zone: TimeZone) -> str:
    """Returns the rule "from this day on" in words."""
    day = time_zone.moment(time).date()
    return f"from {day} on ({time_zone.name}) for test"
