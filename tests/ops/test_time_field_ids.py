"""Ids of time fields against Python's calendar and integers."""

import datetime

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.time_field_ids import time_field_ids
from sparsectr.time_fields import TIME_FIELDS
from sparsectr.time_zone import TimeZone
from tests.reference.time_fields import behavior_ids, request_ids
from tests.reference.times import zone_of

END = 4_102_444_800
ZONES = [
    TimeZone.fixed(0),
    TimeZone.fixed(345),
    TimeZone.named("Europe/Copenhagen"),
]
NAMES = tuple(TIME_FIELDS)


def _times() -> np.ndarray:
    """Histories whose gaps are at and around powers of two.

    Returns:
        int64 `[B, L + 1]`, left-padded with 0; the last is the request's.
    """
    powers = 2 ** np.arange(26)
    gaps = np.concatenate([powers - 1, powers, powers + 1, [0, 0, 3 << 20]])
    random = np.random.default_rng(0)
    rows = [random.permutation(gaps) for _ in range(7)]
    # Across the change of clocks of Copenhagen, hour by hour.
    rows += [np.full(len(gaps), 3601), np.full(len(gaps), 1800)]
    times = 1_679_600_000 + np.cumsum(rows, axis=1)
    for row, valid in zip(
        times, (0, 1, 2, 40, 79, 81, 81, 81, 81), strict=True
    ):
        row[: len(gaps) - 1 - valid] = 0
    times[5] = [*np.zeros(len(gaps) - 3), 1, END - 2, END - 1]
    return times


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
def test_ids_are_the_calendars(zone: TimeZone, jit_compile: bool) -> None:
    times = _times()
    behavior_time, request_time = times[:, :-1], times[:, -1]

    @tf.function(jit_compile=jit_compile)
    def ids(history: tf.Tensor, request: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            name: time_field_ids(
                name,
                request if name.startswith("request_") else history,
                zone,
                request,
            )
            for name in NAMES
        }

    found = {
        name: value.numpy()
        for name, value in ids(behavior_time, request_time).items()
    }
    calendar = zone_of(zone.name)
    for (b, position), _ in np.ndenumerate(behavior_time):
        history, request = behavior_time[b].tolist(), int(request_time[b])
        expected = behavior_ids(NAMES, history, position, request, calendar)
        assert len(expected) == 4
        assert {
            name: found[name][b, position] for name in expected
        } == expected, (b, position)
    for b, request in enumerate(request_time.tolist()):
        expected = request_ids(NAMES, request, calendar)
        assert {name: found[name][b] for name in expected} == expected
    for name, value in found.items():
        assert value.dtype == np.int32
        assert value.min() >= 0
        assert value.max() < TIME_FIELDS[name].num_rows


def test_the_largest_gap_has_the_last_row() -> None:
    times = np.array([[1, END - 1]])
    gap = time_field_ids("behavior_gap", times, ZONES[0])
    assert gap[0, 1] == TIME_FIELDS["behavior_gap"].num_rows - 1
    gap = time_field_ids("gap_to_request", times, ZONES[0], times[:, 1])
    assert gap[0, 0] == TIME_FIELDS["gap_to_request"].num_rows - 1


def test_hours_around_a_change_of_clocks() -> None:
    change = int(
        datetime.datetime.fromisoformat("2023-10-29T01:00+00:00").timestamp()
    )
    times = change + 1800 * np.array([[-3, -2, -1, 0, 1, 2]])
    zone = TimeZone.named("Europe/Copenhagen")
    found = time_field_ids("behavior_hour", times, zone).numpy() - 1
    assert found.tolist() == [[1, 2, 2, 2, 2, 3]]
    # Sunday ends at 23:00 UTC, and a day of summer time at 22:00.
    ends = change + 3600 * np.array([[22 - 0.5, 22, -3.5, -3]])
    found = time_field_ids("behavior_weekday", ends.astype(int), zone).numpy()
    assert found.tolist() == [[7, 1, 6, 7]]


def test_times_out_of_order_have_ids_of_the_tables() -> None:
    """A served model answers them with finite scores."""
    times = np.array([[0, 9, 5, END * 4, -3, 7]])
    request = np.array([1])
    for name, field in TIME_FIELDS.items():
        time = request if name.startswith("request_") else times
        ids = time_field_ids(name, time, ZONES[2], request).numpy()
        assert ids.shape == time.shape, field
