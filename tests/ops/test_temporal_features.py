"""Temporal features against Python integers, which never round."""

import datetime
import math

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from sparsectr.ops.temporal_features import (
    floor_log2,
    hour_wave,
    is_weekend,
    temporal_features,
    time_gaps,
)
from tests.reference import times as reference

NOW = 1_494_590_400
"""2017-05-12 12:00 UTC, a Friday."""


@pytest.mark.parametrize(("dtype", "highest"), [("int32", 30), ("int64", 40)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_floor_log2_is_exact_around_powers_of_two(
    dtype: str, highest: int, jit_compile: bool
) -> None:
    powers = [2**k for k in range(highest + 1)]
    around = [p - 1 for p in powers if p > 1] + [p + 1 for p in powers]
    # All ones below the leading bit but one: what float32 rounds up.
    nearly = [p - 1 - (p >> 3) for p in powers if p > 8]
    values = [*powers, *around, *nearly]
    compiled = tf.function(floor_log2, jit_compile=jit_compile)
    logs = compiled(tf.constant(values, dtype)).numpy()
    assert logs.dtype == np.float32
    assert logs.tolist() == [value.bit_length() - 1 for value in values]


def test_floor_log2_of_many_values() -> None:
    random = np.random.default_rng(0)
    values = 2 ** random.uniform(0, 30, size=100_000)
    values = values.astype("int32")
    logs = floor_log2(values).numpy()
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


@pytest.mark.parametrize("utc_offset_hours", [-12, -3, 0, 8, 14])
def test_weekend_is_the_calendars(utc_offset_hours: int) -> None:
    start = 1_494_000_000
    # Every hour of 16 days, and the seconds around it.
    hours = start - start % 3600 + 3600 * np.arange(16 * 24)
    times = np.concatenate([hours - 1, hours, hours + 1])
    zone = datetime.timezone(datetime.timedelta(hours=utc_offset_hours))
    expected = [
        datetime.datetime.fromtimestamp(int(time), zone).weekday() >= 5
        for time in times
    ]
    found = is_weekend(tf.constant(times), utc_offset_hours)
    assert found.numpy().tolist() == expected


def test_gaps_are_exact_seconds() -> None:
    gaps = np.array([0, 1, 30, 60, 127, 128, 2**24 + 1, 2**30])
    for sign in (1, -1):
        found = time_gaps(np.full_like(gaps, NOW), NOW + sign * gaps)
        assert found.dtype == "int32"
        assert found.numpy().tolist() == gaps.tolist()


def test_gap_to_padding_does_not_overflow() -> None:
    gap = time_gaps(np.array([NOW]), np.array([0])).numpy()
    assert gap.tolist() == [2**30]


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
    features = temporal_features(query_time, key_time, 8)
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
            reference.is_weekend(int(query_time[b, q, 0]), 8)
            != reference.is_weekend(int(time), 8)
        )


def test_features_broadcast_queries_to_keys() -> None:
    query_time = np.array([[[NOW], [NOW + 2]]])
    key_time = np.array([[[NOW - 1, NOW - 6, NOW - 62]]])
    features = temporal_features(query_time, key_time, 0)
    assert [tuple(ops.shape(feature)) for feature in features] == 3 * [
        (1, 2, 3)
    ]
    assert features[0].numpy().tolist() == [[[0, 2, 5], [1, 3, 6]]]
