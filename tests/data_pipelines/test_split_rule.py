import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.raw.split_rule import (
    FromTime,
    LastDay,
    LastFraction,
    SplitRule,
    Times,
    describe_day,
)
from sparsectr.time_zone import TimeZone

NOTHING: Times = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _times(times: list[int]) -> Times:
    distinct, counts = np.unique(np.array(times, np.int64), return_counts=True)
    return distinct, counts.astype(np.int64)


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        (FromTime(time=5, rule="from 5 on"), False),
        (LastDay(time_zone=TimeZone.fixed(480)), True),
        (LastFraction(fraction=0.5), True),
    ],
)
def test_who_needs_times(rule: SplitRule, needs: bool) -> None:
    assert rule.needs_times == needs
    assert isinstance(rule.resolve(NOTHING)[1], str)


def test_from_time() -> None:
    rule = FromTime(time=5, rule="from 5 on")
    assert rule.resolve(NOTHING) == (5, "from 5 on")


@pytest.mark.parametrize(
    ("last", "offset", "day"),
    [
        # 2022-04-29 23:59:59 and 2022-04-30 00:00 in China.
        (1651247999, 8, 1651161600),
        (1651248000, 8, 1651248000),
        (1651247999, 0, 1651190400),
        (1651190400, 0, 1651190400),
        (1651190399, 0, 1651104000),
        (1651190400, -5, 1651122000),
    ],
)
def test_last_day(last: int, offset: int, day: int) -> None:
    zone = TimeZone.fixed(60 * offset)
    rule = LastDay(time_zone=zone)
    time, words = rule.resolve(_times([5, last - 900_000, last]))
    assert time == day
    python = datetime.timezone(datetime.timedelta(hours=offset))
    date = datetime.datetime.fromtimestamp(last, python).date()
    assert words == f"from {date} on (UTC{offset:+d}) for test"
    assert zone.start_of_day(date) == day
    assert describe_day(day, zone) == words


@pytest.mark.parametrize(
    ("last", "name", "day", "midnight"),
    [
        # The day is of 23 hours, of 25, and begins at 01:00.
        ("2023-03-26T23:59+02:00", "Europe/Copenhagen", 26, "00:00+01:00"),
        ("2023-10-29T23:59+01:00", "Europe/Copenhagen", 29, "00:00+02:00"),
        ("2017-10-15T01:00-02:00", "America/Sao_Paulo", 15, "01:00-02:00"),
        ("2017-10-14T23:59-03:00", "America/Sao_Paulo", 14, "00:00-03:00"),
    ],
)
def test_last_day_on_which_clocks_change(
    last: str, name: str, day: int, midnight: str
) -> None:
    time = int(datetime.datetime.fromisoformat(last).timestamp())
    rule = LastDay(time_zone=TimeZone.named(name))
    start, words = rule.resolve(_times([5, time - 86_400, time]))
    date = f"{last[:7]}-{day}"
    moment = datetime.datetime.fromisoformat(f"{date}T{midnight}")
    assert start == moment.timestamp()
    assert words == f"from {date} on ({name}) for test"


def test_fraction_in_words() -> None:
    rule = LastFraction(fraction=0.9, noun="ratings")
    words = "first 90% of all ratings by time for training"
    assert rule.resolve(_times([1])) == (1, words)
    rule = LastFraction(fraction=0.995)
    words = "first 99.5% of all impressions by time for training"
    assert rule.resolve(NOTHING) == (0, words)


@given(
    times=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    percent=st.integers(1, 99),
)
def test_fraction_is_the_time_of_an_impression(
    times: list[int], percent: int
) -> None:
    time, _ = LastFraction(fraction=percent / 100).resolve(_times(times))
    place = int(percent / 100 * len(times))
    assert time == sorted(times)[place]
    # No more than the fraction is for training; a second is on one side.
    assert sum(t < time for t in times) <= percent / 100 * len(times)


def test_fraction_of_all() -> None:
    # Nothing would be left for the test: the last second is.
    assert LastFraction(fraction=1.0).resolve(_times([1, 2, 2]))[0] == 2
