"""The sizes that batches are padded to."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.reading.batches import Batches
from data_pipelines.requests.buckets import fitting_sizes
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig
from tests.data_pipelines.make_store import (
    CONFIG,
    check_row,
    make_store,
    slow_request,
)

BATCH_SIZE = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made") / "store")


def test_lengths_are_the_least_of_the_buckets(store: Store) -> None:
    batches = Batches(store, "train", CONFIG, BATCH_SIZE, 5)
    assert batches.lengths.tolist() == [3, 7, 13]
    seen = set()
    for step in range(batches.num_batches):
        numbers, length = batches.requests(step)
        batch = batches.batch(step)
        assert batch["behavior_time"].shape == (BATCH_SIZE, length)
        seen.add(length)
        for number in numbers.tolist():
            request = slow_request(store, "train", number, CONFIG.max_history)
            needed = len(request["behavior_time"])
            assert length == min(b for b in (3, 7, 13) if b >= needed)
    assert seen == {3, 7, 13}


@pytest.mark.parametrize(
    ("buckets", "max_history", "lengths"),
    [
        ((13,), 13, [13]),
        ((3, 13, 50), 13, [3, 13]),
        ((3, 7), 5, [3, 5]),
        ((3, 7), 1, [1]),
    ],
)
def test_buckets_end_at_the_longest_history(
    store: Store, buckets: tuple[int, ...], max_history: int, lengths: list[int]
) -> None:
    config = DataConfig(max_history=max_history, length_buckets=buckets)
    batches = Batches(store, "train", config, BATCH_SIZE, 0)
    assert batches.lengths.tolist() == lengths
    num_rows = 0
    for step in range(batches.num_batches):
        batch = batches.batch(step)
        for row, number in enumerate(batches.requests(step)[0].tolist()):
            expected = slow_request(store, "train", number, max_history)
            check_row(batch, row, expected)
            num_rows += 1
    assert num_rows == batches.num_requests


@pytest.mark.parametrize("split", ["train", "test"])
def test_sizes_that_fit_the_store(store: Store, split: str) -> None:
    config = DataConfig(max_history=13)
    batches = Batches(store, split, config, BATCH_SIZE, 0)
    lengths, widths = [], []
    for step in range(batches.num_batches):
        numbers, _ = batches.requests(step)
        requests = [
            slow_request(store, split, number, config.max_history)
            for number in numbers.tolist()
        ]
        lengths += [len(r["behavior_time"]) for r in requests]
        widths.append(max(len(r["label"]) for r in requests))
    assert batches.lengths.tolist() == [*fitting_sizes(np.bincount(lengths), 4)]
    assert 1 < len(batches.lengths) <= 4
    assert batches.widths[-1] == max(widths)
    assert len(batches.widths) <= 2


def test_a_split_without_requests_has_a_size(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", (0, 0))
    batches = Batches(store, "test", DataConfig(), BATCH_SIZE, 0)
    assert (batches.lengths.tolist(), batches.widths) == ([1], (1,))
    assert batches.num_batches == 0


def test_candidates_are_padded_to_a_bucket(store: Store) -> None:
    batches = Batches(store, "train", CONFIG, 1, 0)
    widths = {}
    for step in range(batches.num_batches):
        mask = batches.batch(step)["candidate_mask"]
        widths[int(mask.sum())] = mask.shape[1]
    # Above the last bucket come its multiples.
    assert widths == {1: 2, 2: 2, 3: 5, 5: 5, 6: 10, 11: 15}
