"""TimeChunking against the reference, and its corner cases by hand."""

import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from sparsectr.layers.chunking.chunking import Chunks
from sparsectr.layers.chunking.time_chunking import (
    TimeChunking,
    as_ordered_floats,
)
from sparsectr.ops.places import places_of_history
from tests import reference
from tests.make_requests import make_requests

NOW = 1_494_590_400


def _chunks(behavior_time: Any, num_chunks: int, transition: int = 1) -> Chunks:
    chunking = TimeChunking(num_chunks, transition)
    return chunking(places_of_history(behavior_time))


def _bounds(times: list[int], num_chunks: int) -> list[tuple[int, int]]:
    """Returns (start, end) of the chunks of one history."""
    chunks = _chunks(np.array([times], "int64"), num_chunks)
    starts, ends = chunks.start.numpy()[0], chunks.end.numpy()[0]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _check(chunks: Chunks, behavior_time: np.ndarray) -> None:
    """Compares with the reference, history by history."""
    start, end = chunks.start.numpy(), chunks.end.numpy()
    time, weights = chunks.place.time.numpy(), chunks.weights.numpy()
    has_fraction = chunks.place.has_fraction.numpy()
    np.testing.assert_array_equal(chunks.place.valid, end > start)
    index = chunks.transition_index.numpy()
    place = chunks.transition_place
    transition_time, mask = place.time.numpy(), place.valid.numpy()
    assert not place.has_fraction.numpy().any()
    batch, num_chunks = start.shape
    length = behavior_time.shape[1]
    num_transition = index.shape[1] // num_chunks
    assert index.shape == mask.shape == transition_time.shape
    assert weights.shape == (batch, num_chunks, length)
    for b, times in enumerate(behavior_time):
        expected = reference.time_chunks(times, num_chunks)
        count = len(expected)
        found = list(zip(start[b].tolist(), end[b].tolist(), strict=True))
        assert found[:count] == expected
        for p in range(num_chunks):
            low, high = found[p]
            rows = slice(p * num_transition, (p + 1) * num_transition)
            if p >= count:
                assert low == high == length
                assert not mask[b, rows].any()
                assert not weights[b, p].any()
                continue
            exact = reference.chunk_time(times[low:high])
            assert time[b, p] == math.floor(exact)
            assert has_fraction[b, p] == (time[b, p] != exact)
            mean = np.zeros(length)
            mean[low:high] = 1.0 / (high - low)
            np.testing.assert_allclose(weights[b, p], mean, rtol=1e-6)
            last = list(range(max(low, high - num_transition), high))
            kept = mask[b, rows]
            assert index[b, rows][kept].tolist() == last
            assert kept.tolist() == sorted(kept.tolist())
            assert transition_time[b, rows][kept].tolist() == (
                times[last].tolist()
            )


@pytest.mark.parametrize(
    ("num_chunks", "num_transition"), [(7, 2), (1, 3), (2, 1), (5, 31), (31, 2)]
)
def test_equals_the_reference_for_every_length(
    num_chunks: int, num_transition: int
) -> None:
    length = 19
    behavior_time = make_requests(num_chunks, range(length + 1), length=length)[
        "behavior_time"
    ]
    chunks = _chunks(behavior_time, num_chunks, num_transition)
    _check(chunks, behavior_time)


@hypothesis.given(
    gaps=strategies.lists(strategies.integers(0, 3), max_size=12),
    num_chunks=strategies.integers(1, 6),
)
@hypothesis.settings(max_examples=60)
def test_ties_break_as_in_the_reference(
    gaps: list[int], num_chunks: int
) -> None:
    times = (NOW + np.cumsum(gaps, dtype="int64")).astype("int64")
    behavior_time = np.pad(times, (13 - len(times), 0))[np.newaxis]
    _check(_chunks(behavior_time, num_chunks, 2), behavior_time)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_of_any_length_equal_the_reference(jit_compile: bool) -> None:
    length = 17
    # Gaps that are all equal: only the tie rule cuts.
    behavior_time = np.stack(
        [
            np.pad(NOW + 60 * np.arange(count), (length - count, 0))
            for count in range(length + 1)
        ]
    )
    compiled = tf.function(
        lambda behavior_time: _chunks(behavior_time, 5, 2),
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec((None, None), tf.int64)],
    )
    for values in (behavior_time, behavior_time[:4, -3:], behavior_time[:2]):
        _check(compiled(tf.constant(values)), values)


def test_cuts_at_the_largest_gaps() -> None:
    times = [NOW, NOW + 1, NOW + 9, NOW + 10, NOW + 99]
    assert _bounds(times, 3) == [(0, 2), (2, 4), (4, 5)]


def test_of_equal_gaps_the_more_recent_is_cut() -> None:
    times = [NOW, NOW + 5, NOW + 10, NOW + 15]
    assert _bounds(times, 2) == [(0, 3), (3, 4)]
    assert _bounds(times, 3) == [(0, 2), (2, 3), (3, 4)]
    tied = [NOW] * 4
    assert _bounds(tied, 2) == [(0, 3), (3, 4)]


# Around the ends of the two halves of float32, and of the valid times.
_GAPS = [
    *(0, 1, 2, 127, 2**24, 2**30, 2**31, 4_102_444_797),
    *(2**31 - 2**24 + n for n in (-3, -2, -1, 0, 1)),
]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gaps_are_in_order_over_all_valid_times(jit_compile: bool) -> None:
    # As float32 values, the upper ones would be equal; as float32 bits, some
    # would be subnormal, which XLA takes for 0.
    compiled = tf.function(as_ordered_floats, jit_compile=jit_compile)
    gaps = sorted({gap + n for gap in _GAPS for n in (0, 1)})
    floats = compiled(tf.constant([[-1, *gaps]], tf.int64)).numpy()[0]
    assert floats[0] == -np.inf
    assert np.all(np.diff(floats) > 0)
    assert np.all(np.abs(floats[1:]) >= np.finfo(np.float32).tiny)


@pytest.mark.parametrize("gap", [1, 2**24, 2**31 - 2])
def test_gaps_are_told_apart_to_the_second(gap: int) -> None:
    times = [1, gap + 2, 2 * gap + 2]
    assert _bounds(times, 2) == [(0, 1), (1, 3)]
    assert _bounds([1, gap + 1, 2 * gap + 2], 2) == [(0, 2), (2, 3)]


def test_the_longest_gap_cuts() -> None:
    # A century, and 68 years behind 32.
    last = 4_102_444_799
    assert _bounds([1, last - 1, last], 2) == [(0, 1), (1, 3)]
    assert _bounds([1, 10**9, last], 2) == [(0, 2), (2, 3)]
    assert _bounds([1, last - 10**9, last], 2) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_padding_is_no_gap(padding: int) -> None:
    times = [0] * padding + [NOW, NOW + 1, NOW + 100]
    bounds = [
        (start - padding, end - padding) for start, end in _bounds(times, 2)
    ]
    assert bounds == [(0, 2), (2, 3)]


def test_a_short_history_has_empty_chunks_at_the_end() -> None:
    assert _bounds([0, NOW, NOW + 1], 4) == [(1, 2), (2, 3), (3, 3), (3, 3)]
    assert _bounds([0, 0, 0], 2) == [(3, 3), (3, 3)]


def test_mean_time_is_exact() -> None:
    # float32 would hold none of these seconds apart.
    times = np.array(
        [[NOW, NOW + 1, NOW + 3, NOW + 7], [NOW, NOW + 1, NOW + 3, NOW + 8]]
    )
    place = _chunks(times, 1).place
    assert place.time.numpy().tolist() == [[NOW + 2], [NOW + 3]]
    assert place.has_fraction.numpy().tolist() == [[True], [False]]
    assert place.time.dtype == tf.int64


def test_mean_time_of_a_long_history_does_not_overflow() -> None:
    times = np.full((1, 4096), NOW, "int64")
    place = _chunks(times, 1).place
    assert place.time.numpy().tolist() == [[NOW]]
    assert not place.has_fraction.numpy().any()


@pytest.mark.parametrize("name", ["num_chunks", "num_transition"])
def test_rejects_what_is_below_one(name: str) -> None:
    arguments = {"num_chunks": 2, "num_transition": 2, name: 0}
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
        TimeChunking(**arguments)
