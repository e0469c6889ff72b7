"""Batches through tf.data: nothing lost, nothing from the future."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.prepare import prepare
from data_pipelines.reading.batches import Batches
from data_pipelines.reading.reader import element_spec, read
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import write_sample
from sparsectr.config import DataConfig
from tests.data_pipelines.make_store import (
    CONFIG,
    check_row,
    make_store,
    slow_request,
)

BATCH_SIZE = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture(scope="module")
def kuairand(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    folder = tmp_path_factory.mktemp("kuairand")
    return prepare("kuairand", shared_data / "kuairand_pure", folder / "store")


@pytest.fixture(scope="module")
def alibaba(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("alibaba")
    write_sample(folder / "raw", num_users=60, seed=1)
    return prepare("alibaba", folder / "raw", folder / "store")


@pytest.fixture
def batches(store: Store) -> Batches:
    return Batches(store, "train", CONFIG, BATCH_SIZE, 5)


def _elements(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return list(read(*arguments, **options).as_numpy_iterator())


def _assert_equal(batch: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(batch) == list(other)
    for name, value in batch.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_element_spec(batches: Batches) -> None:
    shapes = {
        "user_user": ((6,), tf.int32),
        "user_kind": ((6,), tf.int32),
        "behavior_serial": ((6, None), tf.int32),
        "behavior_shop": ((6, None), tf.int32),
        "behavior_time": ((6, None), tf.int64),
        "request_time": ((6,), tf.int64),
        "candidate_serial": ((6, None), tf.int32),
        "candidate_shop": ((6, None), tf.int32),
        "candidate_price": ((6, None), tf.float32),
        "candidate_mask": ((6, None), tf.bool),
        "label": ((6, None), tf.float32),
    }
    assert element_spec(batches, 6) == {
        name: tf.TensorSpec(shape, dtype, name)
        for name, (shape, dtype) in shapes.items()
    }
    # Names are those of the keys there, and not of the tensors.
    assert read(batches, 0, 1).element_spec == {
        name: tf.TensorSpec(shape, dtype)
        for name, (shape, dtype) in shapes.items()
    }


def test_parts_have_their_own_spec(batches: Batches) -> None:
    spec = read(batches, 0, 1, num_parts=3).element_spec
    assert spec["label"] == tf.TensorSpec((2, None), tf.float32)
    assert spec["request_time"] == tf.TensorSpec((2,), tf.int64)


def test_elements_are_the_batches_in_order(batches: Batches) -> None:
    last = 2 * batches.num_batches + 1  # into the third epoch
    elements = _elements(batches, 0, last)
    assert len(elements) == last
    for step, element in enumerate(elements):
        _assert_equal(element, batches.batch(step))


def test_goes_on_at_any_step(store: Store, batches: Batches) -> None:
    last = batches.num_batches + 2
    whole = _elements(batches, 0, last)
    for first in (1, batches.num_batches, last):
        fresh = Batches(store, "train", CONFIG, BATCH_SIZE, 5)
        rest = _elements(fresh, first, last)
        assert len(rest) == last - first
        for element, other in zip(rest, whole[first:], strict=True):
            _assert_equal(element, other)


def test_no_thread_that_tunes(batches: Batches) -> None:
    # It makes the end of the dataset wait, but not each time, so that a clock
    # could not see it.
    assert read(batches, 0, 2).options().autotune.enabled is False


def test_replicas_read_their_own_parts(batches: Batches) -> None:
    count = batches.num_batches
    first = _elements(batches, 0, count, parts=range(2), num_parts=3)
    second = _elements(batches, 0, count, parts=range(2, 3), num_parts=3)
    assert (len(first), len(second)) == (2 * count, count)
    for step in range(count):
        parts = [first[2 * step], first[2 * step + 1], second[step]]
        together = {
            name: np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }
        _assert_equal(together, batches.batch(step))


def test_workers_read_everything_once(store: Store) -> None:
    workers = [
        Batches(store, "train", CONFIG, 3, 5, worker=worker, num_workers=2)
        for worker in range(2)
    ]
    count = workers[0].num_batches
    found = []
    for worker in workers:
        elements = _elements(worker, count, 2 * count)  # the second epoch
        assert len(elements) == count
        for element in elements:
            found += element["candidate_serial"][
                element["candidate_mask"]
            ].tolist()
    expected = [
        serial
        for shard in store.shards
        for serial in shard.splits["train"].candidates["serial"].tolist()
    ]
    assert sorted(found) == sorted(expected)


def test_parts_must_be_equal(batches: Batches) -> None:
    with pytest.raises(ValueError, match="Received: num_parts=4"):
        read(batches, 0, 1, num_parts=4)


def _check_no_leak(
    store: Store, split: str, config: DataConfig, size: int, every: int
) -> int:
    """Checks a whole epoch of the reader and returns how many behaviors.

    All behaviors are compared with the times of their requests, and all
    values of each `every`th batch with a slow gather.
    """
    batches = Batches(store, split, config, size, 3)
    num_behaviors = 0
    for step, batch in enumerate(_elements(batches, 0, batches.num_batches)):
        time = batch["behavior_time"]
        valid = time > 0
        num_behaviors += valid.sum()
        assert (time < batch["request_time"][:, None])[valid].all(), "a leak"
        # Left padding, and never a behavior older than the one before it.
        assert (np.diff(time, axis=1) >= 0).all()
        if step % every == 0:
            numbers, _ = batches.requests(step)
            for row, number in enumerate(numbers.tolist()):
                expected = slow_request(
                    store, split, number, config.max_history
                )
                check_row(batch, row, expected)
    return int(num_behaviors)


def _num_older(store: Store, split: str, max_history: int) -> int:
    """Returns how many behaviors an epoch must show, from times alone."""
    total = 0
    for shard in store.shards:
        requests = shard.splits[split]
        offset = np.asarray(shard.behavior_offset)
        for user in np.unique(requests.user):
            start, end = offset[user : user + 2]
            older = np.searchsorted(
                shard.behavior_time[start:end],
                requests.time[requests.user == user],
            )
            total += int(np.minimum(older, max_history).sum())
    return total


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_leak_and_nothing_lost(store: Store, split: str) -> None:
    found = _check_no_leak(store, split, CONFIG, BATCH_SIZE, every=1)
    assert found == _num_older(store, split, CONFIG.max_history) > 100


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_leak_in_made_alibaba_files(alibaba: Store, split: str) -> None:
    config = DataConfig(max_history=300, length_buckets=(64, 128))
    found = _check_no_leak(alibaba, split, config, 32, every=3)
    assert found == _num_older(alibaba, split, 300) > 5_000


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_leak_in_kuairand(kuairand: Store, split: str) -> None:
    config = DataConfig(max_history=20, length_buckets=(4, 8))
    found = _check_no_leak(kuairand, split, config, 512, every=20)
    assert found == _num_older(kuairand, split, 20) > 50_000


def test_the_check_sees_a_leak(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", (17,))
    folder = store.path / "shard-00000-of-00001"
    requests = store.shards[0].splits["train"]
    owner_end = store.shards[0].behavior_offset[requests.user + 1]
    (later,) = np.nonzero(requests.history_end < owner_end)
    wrong = np.array(requests.history_end)
    wrong[later[0]] += 1
    np.save(folder / "train" / "history_end.npy", wrong)
    with pytest.raises(AssertionError, match="a leak"):
        _check_no_leak(Store(store.path), "train", CONFIG, 6, every=1)
