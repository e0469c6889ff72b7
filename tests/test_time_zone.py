"""Time zones against Python's own, which are computed another way."""

import dataclasses
import datetime
import json
import pickle
import re
import zoneinfo

import numpy as np
import pytest

from sparsectr.time_zone import LATEST_TIME, UTC, TimeZone

HOUR = 3600

NAMES = (
    "Europe/Copenhagen",
    "America/Sao_Paulo",  # days without a midnight
    "America/Havana",  # days with two midnights
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Apia",  # 2011-12-30 is no day there
    "Africa/Casablanca",  # winter time in Ramadan
    "Africa/Monrovia",  # UTC-0:44:30 until 1972
    "Asia/Kolkata",
)

every_zone = pytest.mark.parametrize("name", NAMES)


def _times(zone: TimeZone) -> np.ndarray:
    """Seconds around every change, and some at random."""
    changes = np.array([start for start, _ in zone.offsets])
    offsets = np.array([-HOUR - 1, -HOUR, -1, 0, 1, HOUR - 1, HOUR, HOUR + 1])
    random = np.random.default_rng(0).integers(0, LATEST_TIME, 1000)
    times = np.append(changes[1:, None] + offsets, random)
    return times[(times >= 0) & (times < LATEST_TIME)]


def _local(time: int, name: str) -> int:
    """Local seconds by `zoneinfo`."""
    moment = datetime.datetime.fromtimestamp(time, zoneinfo.ZoneInfo(name))
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())


@every_zone
def test_local_time_is_the_calendars(name: str) -> None:
    zone = TimeZone.named(name)
    times = _times(zone)
    expected = [_local(int(time), name) for time in times]
    assert zone.local(times).tolist() == expected
    assert zone.local(times).dtype == np.int64
    for time in times[:200].tolist():
        moment = zone.moment(time)
        assert moment.timestamp() == time
        python = datetime.datetime.fromtimestamp(time, zoneinfo.ZoneInfo(name))
        assert moment.replace(tzinfo=None) == python.replace(tzinfo=None)


@every_zone
def test_clock_times_that_occur_twice_or_never(name: str) -> None:
    zone = TimeZone.named(name)
    local = zone.local(_times(zone))
    local = np.unique(np.concatenate([local, local + 1800, local - 1800]))
    epoch = datetime.datetime(1970, 1, 1)
    for seconds, found in zip(
        local.tolist(), zone.universal(local).tolist(), strict=True
    ):
        clock = epoch + datetime.timedelta(seconds=seconds)
        python = clock.replace(tzinfo=zoneinfo.ZoneInfo(name))  # fold=0
        if 0 < found < LATEST_TIME - 2 * HOUR:
            assert found == python.timestamp(), clock
            assert zone.attach(clock).timestamp() == found
            assert zone.attach(clock).replace(tzinfo=None) == clock


@every_zone
def test_a_day_begins_with_its_first_second(name: str) -> None:
    zone = TimeZone.named(name)
    python = zoneinfo.ZoneInfo(name)
    # Every day of a year with changes in each zone, by its seconds.
    start = 1_301_000_000
    for time in range(start, start + 380 * 86_400, 86_400):
        day = datetime.datetime.fromtimestamp(time, python).date()
        first = zone.start_of_day(day)
        assert datetime.datetime.fromtimestamp(first, python).date() == day
        before = datetime.datetime.fromtimestamp(first - 1, python).date()
        assert before < day, day


def test_days_of_other_lengths() -> None:
    day = datetime.date.fromisoformat
    copenhagen = TimeZone.named("Europe/Copenhagen")
    starts = [
        copenhagen.start_of_day(day(text))
        for text in ("2023-03-26", "2023-03-27", "2023-10-29", "2023-10-30")
    ]
    assert starts[1] - starts[0] == 23 * HOUR
    assert starts[3] - starts[2] == 25 * HOUR
    # Begins at 01:00; and has two seconds of 00:00:00, an hour apart.
    sao_paulo = TimeZone.named("America/Sao_Paulo")
    first = sao_paulo.start_of_day(day("2017-10-15"))
    assert sao_paulo.moment(first).hour == 1
    havana = TimeZone.named("America/Havana")
    first = havana.start_of_day(day("2023-11-05"))
    assert havana.local([first, first + HOUR]).tolist() == 2 * [
        havana.local(first)
    ]
    assert UTC.start_of_day(day("1970-01-01")) == 0
    assert TimeZone.fixed(480).start_of_day(day("1970-01-01")) == -8 * HOUR


@pytest.mark.parametrize(
    ("minutes", "name"),
    [
        (0, "UTC+0"),
        (480, "UTC+8"),
        (330, "UTC+5:30"),
        (-210, "UTC-3:30"),
        (-720, "UTC-12"),
        (840, "UTC+14"),
        (-5, "UTC-0:05"),
    ],
)
def test_fixed(minutes: int, name: str) -> None:
    zone = TimeZone.fixed(minutes)
    assert (zone.name, zone.is_fixed) == (name, True)
    assert zone.local([7, -7]).tolist() == [7 + 60 * minutes, 60 * minutes - 7]
    assert zone.universal(zone.local(7)) == 7


@pytest.mark.parametrize("minutes", [-721, 841, 5.0, True])
def test_offset_out_of_range(minutes: int) -> None:
    message = f"from -720 to 840. Received: minutes={minutes!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        TimeZone.fixed(minutes)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("Europe/Kopenhagen", "Europe/Copenhagen"),
        ("Asia/Shanghi", "Asia/Shanghai"),
        ("europe/paris", "Europe/Paris"),
    ],
)
def test_unknown_name(name: str, close: str) -> None:
    message = f"no time zone '{name}'.*Did you mean '{close}'"
    with pytest.raises(ValueError, match=message):
        TimeZone.named(name)


@pytest.mark.parametrize("name", ["", "Europe", "../etc/passwd", "/etc/UTC"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"no time zone {name!r}")):
        TimeZone.named(name)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "x"},
        {"name": "x", "offsets": []},
        {"name": "x", "offsets": [[5, 0]]},
        {"name": "x", "offsets": [[0, 0.5]]},
        {"name": "x", "offsets": [[0, 86_400]]},
        {"name": "x", "offsets": [[0, 0], [0, 3600]]},
        {"name": "x", "offsets": [[0, 0], [86_399, 3600]]},
        {"name": "x", "offsets": [[0, 0, 0]]},
        {"name": "", "offsets": [[0, 0]]},
        {"name": "x", "offsets": [[0, 0]], "more": 1},
    ],
)
def test_what_is_no_zone(values: dict) -> None:
    with pytest.raises(ValueError, match=r"time zone|pairs|unpack"):
        TimeZone.from_dict(values)


def test_copies() -> None:
    zone = TimeZone.named("Europe/Copenhagen")
    text = json.dumps(dataclasses.asdict(zone))
    for copy in (
        TimeZone.from_dict(json.loads(text)),
        pickle.loads(pickle.dumps(zone)),
    ):
        assert copy == zone
        assert hash(copy) == hash(zone)
    assert repr(zone) == "TimeZone(name='Europe/Copenhagen')"
