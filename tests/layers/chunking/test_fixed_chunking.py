"""FixedChunking against the reference, and its corner cases by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.chunking.fixed_chunking import FixedChunking
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.places import places_of_history
from tests.make_requests import CONFIG, SCHEMA, make_requests
from tests.reference.chunkings import chunks_of

LENGTH = 23
TIMES = make_requests(1, range(LENGTH + 1), length=LENGTH)["behavior_time"]


def _bounds(chunking: Any, times: np.ndarray) -> list[list[tuple[int, int]]]:
    chunks = chunking(places_of_history(times))
    bounds = np.stack([chunks.start, chunks.end], axis=2).tolist()
    return [[(start, end) for start, end in row] for row in bounds]


@pytest.mark.parametrize("chunking", ["fixed", "balanced"])
@pytest.mark.parametrize(
    ("num_chunks", "max_history"), [(7, 23), (1, 5), (5, 11), (31, 23), (3, 1)]
)
def test_equals_the_reference(
    chunking: str, num_chunks: int, max_history: int
) -> None:
    """Also histories longer than all chunks, and fewer rows than chunks."""
    config = dataclasses.replace(
        CONFIG,
        chunking=chunking,
        num_chunks=num_chunks,
        max_history=max_history,
    )
    layer = SparseCTR(SCHEMA, config).blocks[0].attention.chunking
    for times, found in zip(TIMES, _bounds(layer, TIMES), strict=True):
        expected = chunks_of(config, times, ())
        assert found[: len(expected)] == expected
        assert found[len(expected) :] == (
            [(LENGTH, LENGTH)] * (num_chunks - len(expected))
        )


def test_padding_and_batch_mates_move_no_cut() -> None:
    times = TIMES[11:12]
    for layer in (FixedChunking(3, 1, 5), FixedChunking(3)):
        expected = _bounds(layer, times)[0]
        padded = np.pad(times, [(0, 0), (4, 0)])
        moved = [[(s - 4, e - 4) for s, e in _bounds(layer, padded)[0]]]
        assert moved == [expected]
        assert _bounds(layer, TIMES)[11] == expected


def test_counts_from_the_newest() -> None:
    times = np.arange(1, 9)[np.newaxis]
    assert _bounds(FixedChunking(3, 1, 3), times) == [[(0, 2), (2, 5), (5, 8)]]
    # What is older than all chunks belongs to the oldest.
    assert _bounds(FixedChunking(3, 1, 2), times) == [[(0, 4), (4, 6), (6, 8)]]


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_graphs_of_any_length(chunk_size: int | None) -> None:
    layer = FixedChunking(5, 2, chunk_size)
    compiled = tf.function(
        lambda times: layer(places_of_history(times))[:2],
        jit_compile=True,
        input_signature=[tf.TensorSpec((None, None), tf.int64)],
    )
    for times in (TIMES, TIMES[:3, -2:]):
        expected = layer(places_of_history(times))[:2]
        for found, bound in zip(compiled(times), expected, strict=True):
            np.testing.assert_array_equal(found, bound)


def test_rejects_an_empty_chunk() -> None:
    with pytest.raises(ValueError, match="`chunk_size` must be at least 1"):
        FixedChunking(3, 1, 0)
