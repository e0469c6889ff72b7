"""Shapes that requests are padded to."""

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.requests.buckets import (
    Buckets,
    fitting_sizes,
    least_bucket,
)
from sparsectr.config import Config, DataConfig
from sparsectr.errors import InputError

BUCKETS = Buckets(
    history_lengths=(7, 11), num_candidates=(3, 5, 13), batch_sizes=(1, 2)
)


@pytest.mark.parametrize(
    ("num_behaviors", "length"),
    [(0, 7), (1, 7), (7, 7), (8, 11), (11, 11), (12, 22), (22, 22), (23, 33)],
)
def test_pads_a_history_to_the_least_length(
    num_behaviors: int, length: int
) -> None:
    assert BUCKETS.length_of(num_behaviors) == length


@pytest.mark.parametrize(
    ("num_candidates", "padded"),
    [(0, 3), (3, 3), (4, 5), (6, 13), (13, 13), (14, 26), (100, 104)],
)
def test_pads_candidates_to_the_least_number(
    num_candidates: int, padded: int
) -> None:
    assert BUCKETS.candidates_of(num_candidates) == padded


@pytest.mark.parametrize(("num_requests", "size"), [(1, 1), (2, 2), (3, 4)])
def test_fills_a_batch_up_to_the_least_size(
    num_requests: int, size: int
) -> None:
    assert BUCKETS.batch_of(num_requests) == size


@given(st.integers(0, 100_000))
def test_padding_is_a_bucket_already(num_behaviors: int) -> None:
    length = Buckets().length_of(num_behaviors)
    assert length >= num_behaviors
    assert Buckets().length_of(length) == length


def _config(max_history: int) -> Config:
    data = DataConfig(max_history=max_history)
    return Config(dataset="made", model=SparseCTRRecipe(), data=data)


@pytest.mark.parametrize(
    ("max_history", "lengths"),
    [
        (50, (50,)),
        (128, (128,)),
        (200, (128, 200)),
        (1024, (128, 256, 512, 1024)),
        (3000, (128, 256, 512, 1024, 2048, 3000)),
    ],
)
def test_longest_history_is_that_of_the_model(
    max_history: int, lengths: tuple[int, ...]
) -> None:
    found = Buckets.for_config(_config(max_history))
    assert found == dataclasses.replace(Buckets(), history_lengths=lengths)


def test_survives_json() -> None:
    found = Buckets.from_dict(json.loads(json.dumps(BUCKETS.to_dict())))
    assert found == BUCKETS


def test_reads_those_of_a_version(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "signature.json"
    path.write_text(json.dumps({"buckets": BUCKETS.to_dict(), "version": 1}))
    assert Buckets.read(path) == BUCKETS


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"buckets": null}', '{"buckets": {"a": [1]}}']
)
def test_refuses_a_file_without_them(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "signature.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"signature\.json has no buckets: "):
        Buckets.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sizes": None}, "`batch_sizes` must be a list of integers"),
        ({"batch_sizes": [1, 2.0]}, "`batch_sizes` must be a list of integers"),
        ({"batch_sizes": [True]}, "`batch_sizes` must be a list of integers"),
        ({"batch_sizes": []}, "`batch_sizes` must be positive and ascending"),
        ({"num_candidates": [5, 5]}, "`num_candidates` must be positive"),
        ({"history_lengths": [0, 5]}, "`history_lengths` must be positive"),
        ({"lengths": [1]}, "Buckets have history_lengths, num_candidates"),
    ],
)
def test_refuses_bad_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Buckets.from_dict({**BUCKETS.to_dict(), **change})


def test_refuses_a_missing_key() -> None:
    with pytest.raises(ValueError, match="Buckets have history_lengths"):
        Buckets.from_dict({"batch_sizes": [1]})


def test_refuses_a_negative_count() -> None:
    with pytest.raises(ValueError, match="Received: count=-1"):
        BUCKETS.length_of(-1)
    with pytest.raises(ValueError, match="Received: count=-2"):
        BUCKETS.candidates_of(-2)


def test_batching_allows_the_batch_sizes_alone() -> None:
    lines = BUCKETS.batching_params_text().splitlines()
    allowed = [line for line in lines if line.startswith("allowed_batch")]
    assert allowed == ["allowed_batch_sizes: 1", "allowed_batch_sizes: 2"]
    # The server does not load a model where the last one differs from this.
    assert "max_batch_size { value: 2 }" in lines


def _padded_sum(counts: list[int], sizes: tuple[int, ...]) -> int:
    return sum(
        count * least_bucket(sizes, size) for size, count in enumerate(counts)
    )


def _least_sums(counts: list[int], most: int) -> list[int]:
    """Returns the least padded sum with 1, 2, ... sizes, by trying all."""
    (*rest, largest) = [n for n, count in enumerate(counts) if n and count]
    return [
        min(
            _padded_sum(counts, (*chosen, largest))
            for chosen in itertools.combinations(rest, number)
        )
        for number in range(min(most, len(rest) + 1))
    ]


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=12),
    most=st.integers(1, 4),
)
def test_fitting_sizes_pad_the_least(counts: list[int], most: int) -> None:
    counts[-1] += 1  # The last is the largest.
    sizes = fitting_sizes(np.array(counts), most)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == len(counts) - 1
    assert len(sizes) <= most
    sums = _least_sums(counts, most)
    assert _padded_sum(counts, sizes) == sums[len(sizes) - 1]
    # Each one saved its 5 %, and the next one would not.
    for fewer, more in itertools.pairwise(sums[: len(sizes)]):
        assert more < 0.95 * fewer
    if len(sizes) < len(sums):
        assert sums[len(sizes)] >= 0.95 * sums[len(sizes) - 1]


@pytest.mark.parametrize("counts", [[0], [5], [0, 0, 0]])
def test_nothing_is_padded_to_one(counts: list[int]) -> None:
    assert fitting_sizes(np.array(counts), 4) == (1,)


def test_large_sizes_are_cut_coarsely() -> None:
    counts = np.zeros(100_001)
    counts[[1_000, 100_000]] = 7, 3
    least, largest = fitting_sizes(counts, 4)
    assert 1_000 <= least <= 1_000 + 100_000 // 128 + 1
    assert largest == 100_000
