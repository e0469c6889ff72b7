"""Temporal features against Python integers, which never round."""

import datetime
import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from sparsectr.ops.places import Places
from sparsectr.ops.temporal_features import (
    floor_log2,
    half_gaps,
    hour_wave,
    is_weekend,
    temporal_features,
)
from sparsectr.time_zone import UTC, TimeZone
from tests.reference import times as reference

CHINA = TimeZone.fixed(8 * 60)
ZONES = [
    *(TimeZone.fixed(minutes) for minutes in (-720, -210, 0, 330, 480, 840)),
    TimeZone.named("Europe/Copenhagen"),
    TimeZone.named("America/Sao_Paulo"),
]

NOW = 1_494_590_400
"""2017-05-12 12:00 UTC, a Friday."""
SATURDAY = NOW + 12 * 3600
END = 4_102_444_800
"""2100-01-01 00:00 UTC, where valid times end."""


def _keys(time: np.ndarray, has_fraction: bool | np.ndarray = False) -> Places:
    """Returns places of which only the time is read."""
    nothing = np.zeros(0)
    fraction = np.broadcast_to(has_fraction, time.shape)
    return Places(time, nothing, nothing, fraction)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_floor_log2_is_exact_around_powers_of_two(jit_compile: bool) -> None:
    powers = [2**k for k in range(32)]
    around = [p - 1 for p in powers] + [p + 1 for p in powers]
    # All ones below the leading bit but one: what float32 rounds up.
    nearly = [p - 1 - (p >> 3) for p in powers if p > 8]
    values = [*powers, *around, *nearly, 2**32 - 1]
    compiled = tf.function(floor_log2, jit_compile=jit_compile)
    logs = compiled(tf.constant(np.array(values) // 2, "int32")).numpy()
    assert logs.dtype == np.float32
    assert logs.tolist() == [max(v, 1).bit_length() - 1 for v in values]


def test_floor_log2_of_many_values() -> None:
    random = np.random.default_rng(0)
    values = (2 ** random.uniform(0, 32, size=100_000)).astype("int64")
    logs = floor_log2((values // 2).astype("int32")).numpy()
    assert np.all(values >= 2 ** logs.astype("int64"))
    assert np.all(values < 2 ** (logs.astype("int64") + 1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_hour_wave_is_the_sine(jit_compile: bool) -> None:
    compiled = tf.function(hour_wave, jit_compile=jit_compile)
    found = compiled(tf.range(25))
    assert found.dtype == tf.float32
    expected = [math.sin(math.pi * hour / 24) for hour in range(25)]
    # Half a unit in the last place of 1 is 6e-8.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
# The second has the last Sundays of March and of October 2017, when clocks in
# Copenhagen change, and the Sunday that begins at 01:00 in Sao Paulo.
@pytest.mark.parametrize(
    "start", [1_494_000_000, 1_490_000_000, 1_507_500_000, 1_508_700_000]
)
def test_weekend_is_the_calendars(zone: TimeZone, start: int) -> None:
    # Every hour of 16 days, and the seconds around it.
    hours = start - start % 3600 + 3600 * np.arange(16 * 24)
    times = np.concatenate([hours - 1, hours, hours + 1])
    calendar = reference.zone_of(zone.name)
    expected = [
        datetime.datetime.fromtimestamp(int(time), calendar).weekday() >= 5
        for time in times
    ]
    found = is_weekend(tf.constant(times), zone)
    assert found.numpy().tolist() == expected


def test_gaps_are_exact_over_all_valid_times() -> None:
    gaps = np.array([0, 1, 30, 61, 127, 2**24 + 1, 2**31, END - 2])
    first, last = np.full_like(gaps, 1), 1 + gaps
    for query, key in ((last, first), (first, last)):
        found = half_gaps(query, _keys(key))
        assert found.dtype == "int32"
        assert found.numpy().tolist() == (gaps // 2).tolist()
    # To padding, which is masked.
    assert half_gaps(np.array([END - 1]), _keys(np.array([0]))) == END // 2 - 1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_features_of_means_that_are_not_whole(jit_compile: bool) -> None:
    # The query half a second after a mean, up to a power of two; and a mean
    # after the query, which nothing valid has.
    gaps = np.array([-9, -8, -1, 0, 1, 2, 3, 4, 5, 8, 9, 3600, 3601, 86400])
    query = np.full((1, 1, 1), SATURDAY)
    keys = _keys((SATURDAY - gaps)[None, None], has_fraction=True)
    compiled = tf.function(temporal_features, jit_compile=jit_compile)
    features = compiled(query, keys, UTC)
    for k, gap in enumerate(gaps.tolist()):
        mean = SATURDAY - gap + Fraction(1, 2)
        # Three heads, each of which has one of the three parts.
        expected = -reference.temporal_bias(
            SATURDAY, mean, *np.eye(3), datetime.UTC
        )
        found = [float(feature[0, 0, k]) for feature in features]
        assert found == pytest.approx(expected, abs=1e-6)
    # Half a second before Saturday is Friday.
    assert float(features[2][0, 0, 4]) == 1.0


def test_features_equal_the_equations() -> None:
    random = np.random.default_rng(0)
    batch, queries, keys = 2, 3, 61
    query_time = NOW + random.integers(-(10**6), 10**6, (batch, queries, 1))
    gaps = np.concatenate(
        [
            2 ** np.arange(22),
            2 ** np.arange(22) - 1,
            3600 * np.array([1, 12, 23, 24, 25]),
            3600 * np.array([1, 12, 23, 24, 25]) - 1,
            random.integers(0, 10**7, 7),
        ]
    )
    key_time = query_time - gaps
    assert key_time.shape == (batch, queries, keys)
    features = temporal_features(query_time, _keys(key_time), CHINA)
    china = reference.zone_of("UTC+8")
    for (b, q, k), time in np.ndenumerate(key_time):
        gap = int(query_time[b, q, 0] - time)
        log_gap, hour_wave, weekend_differs = (
            float(feature[b, q, k]) for feature in features
        )
        assert log_gap == max(gap, 1).bit_length() - 1
        hour = (gap // 3600) % 24
        assert hour_wave == pytest.approx(
            math.sin(math.pi * hour / 24), abs=1e-6
        )
        assert weekend_differs == (
            reference.is_weekend(int(query_time[b, q, 0]), china)
            != reference.is_weekend(int(time), china)
        )


def test_features_broadcast_queries_to_keys() -> None:
    query_time = np.array([[[NOW], [NOW + 2]]])
    key_time = np.array([[[NOW - 1, NOW - 6, NOW - 62]]])
    features = temporal_features(query_time, _keys(key_time), UTC)
    assert [tuple(ops.shape(feature)) for feature in features] == 3 * [
        (1, 2, 3)
    ]
    assert features[0].numpy().tolist() == [[[0, 2, 5], [1, 3, 6]]]
