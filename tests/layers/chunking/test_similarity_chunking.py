"""SimilarityChunking against the reference, and its corner cases by hand."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.chunking.similarity_chunking import SimilarityChunking
from sparsectr.ops.places import places_of_history
from tests.make_requests import make_requests
from tests.reference.chunkings import similarity_chunks

LENGTH, WIDTH = 23, 5
TIMES = make_requests(1, range(LENGTH + 1), length=LENGTH)["behavior_time"]


def _rows(kinds: int) -> np.ndarray:
    """Returns rows of a few directions, zeros and many equal neighbours."""
    random = np.random.default_rng(kinds)
    table = random.normal(size=(kinds, WIDTH)).astype("float32")
    table[0] = 0.0
    return table[random.integers(kinds, size=TIMES.shape)]


def _bounds(layer: Any, times: Any, rows: Any) -> list[list[tuple[int, int]]]:
    chunks = layer(places_of_history(times), rows)
    bounds = np.stack([chunks.start, chunks.end], axis=2).tolist()
    return [[(start, end) for start, end in row] for row in bounds]


@pytest.mark.parametrize("num_chunks", [1, 2, 7, 31])
@pytest.mark.parametrize("kinds", [2, 3, 1000])
def test_equals_the_reference(num_chunks: int, kinds: int) -> None:
    rows = _rows(kinds)
    found = _bounds(SimilarityChunking(num_chunks), TIMES, rows)
    for times, row, bounds in zip(TIMES, rows, found, strict=True):
        expected = similarity_chunks(times, row, num_chunks)
        assert bounds[: len(expected)] == expected
        empty = bounds[len(expected) :]
        assert empty == [(LENGTH, LENGTH)] * len(empty)


def test_of_equal_neighbours_the_newest_are_cut() -> None:
    times = np.arange(1, 6)[np.newaxis]
    rows = np.repeat(_rows(1000)[:1, :1], 5, axis=1)
    assert _bounds(SimilarityChunking(2), times, rows) == [[(0, 4), (4, 5)]]


def test_lengths_of_rows_do_not_matter() -> None:
    rows = _rows(1000)
    longer = rows * np.arange(1, LENGTH + 1)[:, np.newaxis].astype("float32")
    layer = SimilarityChunking(7)
    assert _bounds(layer, TIMES, longer) == _bounds(layer, TIMES, rows)


@pytest.mark.parametrize("kinds", [2, 1000])
def test_padding_is_never_cut(kinds: int) -> None:
    """Neither what it holds nor how much of it there is moves a cut."""
    layer, rows = SimilarityChunking(7), _rows(kinds)
    expected = _bounds(layer, TIMES, rows)
    noise = np.random.default_rng(0).normal(size=rows.shape)
    other = np.where(TIMES[..., np.newaxis] > 0, rows, noise).astype("float32")
    assert _bounds(layer, TIMES, other) == expected
    padded = np.pad(TIMES, [(0, 0), (4, 0)])
    other = np.pad(rows, [(0, 0), (4, 0), (0, 0)])
    moved = _bounds(layer, padded, other)
    assert [[(s - 4, e - 4) for s, e in row] for row in moved] == expected


def test_no_gradient_passes_and_graphs_take_any_length() -> None:
    layer = SimilarityChunking(5, 2)

    @tf.function(
        jit_compile=True,
        input_signature=[
            tf.TensorSpec((None, None), tf.int64),
            tf.TensorSpec((None, None, WIDTH), tf.float32),
        ],
    )
    def compiled(times: Any, rows: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            chunks = layer(places_of_history(times), rows)
            loss = tf.reduce_sum(chunks.weights)
        gradient = tape.gradient(loss, rows, unconnected_gradients="zero")
        return chunks.start, chunks.end, gradient

    for times, rows in (
        (TIMES, _rows(1000)),
        (TIMES[:3, -2:], _rows(1000)[:3, -2:]),
    ):
        *found, gradient = compiled(times, rows)
        bounds = np.stack(found, axis=2)
        np.testing.assert_array_equal(bounds, _bounds(layer, times, rows))
        assert not np.any(gradient)


def test_rows_have_to_be_given() -> None:
    with pytest.raises(ValueError, match="`rows` must be given"):
        SimilarityChunking(3)(places_of_history(TIMES))
