"""Every request once, in an order that the step alone decides."""

import dataclasses
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.reading.batches import Batches
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.store import Store, write_store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from tests.data_pipelines.make_store import (
    CONFIG,
    SCHEMA,
    VALIDATION_TIME,
    check_row,
    make_store,
    slow_request,
)

BATCH_SIZE = 4
ORDERS = [("train", 5), ("train", None), ("test", None), ("test", 3)]

each_order = pytest.mark.parametrize(("split", "seed"), ORDERS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made") / "store")


def _train(store: Store, seed: int | None = 5) -> Batches:
    return Batches(store, "train", CONFIG, BATCH_SIZE, seed)


def _epoch(batches: Batches, number: int = 0) -> range:
    return range(
        number * batches.num_batches, (number + 1) * batches.num_batches
    )


def _requests(batches: Batches, steps: Iterable[int]) -> list[tuple[int, ...]]:
    return [tuple(batches.requests(step)[0].tolist()) for step in steps]


def _user_ids(store: Store) -> list[int]:
    return [id_ for shard in store.shards for id_ in shard.user_id.tolist()]


def _assert_equal(batch: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(batch) == list(other)
    for name, value in batch.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_made_store_has_the_cases(store: Store) -> None:
    """Otherwise the tests below would not see them."""
    for split in ("train", "test"):
        total = store.num_requests(split)
        lengths, widths = set(), set()
        for number in range(total):
            request = slow_request(store, split, number, max_history=99)
            lengths.add(len(request["behavior_time"]))
            widths.add(len(request["label"]))
        assert 0 in lengths  # no history
        assert max(lengths) > CONFIG.max_history
        assert {3, 7} <= lengths  # the buckets' own lengths
        assert widths == {1, 2, 3, 5, 6, 11}
    assert len(store.shards) == 3
    assert store.num_requests("train") % BATCH_SIZE


def test_names_types_and_shapes_are_those_of_a_request(store: Store) -> None:
    batches = _train(store)
    step = next(s for s in _epoch(batches) if batches.requests(s)[1] == 7)
    batch = batches.batch(step)
    width = batch["label"].shape[1]
    assert {n: (v.dtype.name, v.shape) for n, v in batch.items()} == {
        "user_user": ("int32", (4,)),
        "user_kind": ("int32", (4,)),
        "behavior_serial": ("int32", (4, 7)),
        "behavior_shop": ("int32", (4, 7)),
        "behavior_time": ("int64", (4, 7)),
        "request_time": ("int64", (4,)),
        "candidate_serial": ("int32", (4, width)),
        "candidate_shop": ("int32", (4, width)),
        "candidate_price": ("float32", (4, width)),
        "candidate_mask": ("bool", (4, width)),
        "label": ("float32", (4, width)),
    }


@each_order
def test_every_request_and_candidate_once(
    store: Store, split: str, seed: int | None
) -> None:
    batches = Batches(store, split, CONFIG, BATCH_SIZE, seed)
    for epoch in (0, 1):
        serials, num_requests = [], 0
        for step in _epoch(batches, epoch):
            batch = batches.batch(step)
            mask = batch["candidate_mask"]
            serials += batch["candidate_serial"][mask].tolist()
            num_requests += mask.any(axis=1).sum()
        assert sorted(serials) == [
            serial
            for shard in store.shards
            for serial in shard.splits[split].candidates["serial"].tolist()
        ]
        assert num_requests == batches.num_requests
        assert num_requests == store.num_requests(split)


@each_order
def test_rows_are_those_of_the_store(
    store: Store, split: str, seed: int | None
) -> None:
    batches = Batches(store, split, CONFIG, BATCH_SIZE, seed)
    num_fillers = 0
    for step in _epoch(batches):
        batch = batches.batch(step)
        numbers, _ = batches.requests(step)
        for row, number in enumerate(numbers.tolist()):
            expected = slow_request(store, split, number, CONFIG.max_history)
            check_row(batch, row, expected)
        for row in range(len(numbers), BATCH_SIZE):
            num_fillers += 1
            assert batch["request_time"][row] == 1
            for name, value in batch.items():
                if name != "request_time":
                    assert not value[row].any(), name
    assert num_fillers > 0
    assert num_fillers + batches.num_requests == (
        batches.num_batches * BATCH_SIZE
    )


def _serials(store: Store, part: str) -> list[int]:
    """Returns the candidates of a part, in plain Python."""
    found = []
    for shard in store.shards:
        requests = shard.splits["train"]
        offset = requests.candidate_offset
        for number, time in enumerate(requests.time.tolist()):
            if (time >= VALIDATION_TIME) == (part == "validation"):
                rows = slice(offset[number], offset[number + 1])
                found += requests.candidates["serial"][rows].tolist()
    return found


@pytest.mark.parametrize("part", ["train_older", "validation"])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_part_is_read_whole_and_alone(
    store: Store, part: str, seed: int | None, num_workers: int
) -> None:
    num_requests, found = 0, []
    for worker in range(num_workers):
        batches = Batches(
            store,
            part,
            CONFIG,
            BATCH_SIZE,
            seed,
            worker=worker,
            num_workers=num_workers,
        )
        num_requests += batches.num_requests
        for step in _epoch(batches, 1):
            batch = batches.batch(step)
            numbers, _ = batches.requests(step)
            for row, number in enumerate(numbers.tolist()):
                # Numbered among all of the split.
                expected = slow_request(
                    store, "train", number, CONFIG.max_history
                )
                check_row(batch, row, expected)
            labels = batches.labels(step, batch["label"].shape[1])
            assert labels.mask.sum() == batch["candidate_mask"].sum()
            _, time = batches.users(step)
            assert ((time >= VALIDATION_TIME) == (part == "validation")).all()
            found += batch["candidate_serial"][batch["candidate_mask"]].tolist()
    expected = _serials(store, part)
    assert sorted(found) == expected
    assert len(expected) > 50
    counts = [count_rows(s, VALIDATION_TIME)[part] for s in store.shards]
    assert num_requests == sum(count["requests"] for count in counts)
    assert len(found) == sum(count["candidates"] for count in counts)


@pytest.mark.parametrize("part", ["train", "train_older"])
def test_the_newest_share_is_read_alone(store: Store, part: str) -> None:
    whole = Batches(store, part, CONFIG, BATCH_SIZE, 5)
    every = np.concatenate([whole.users(step)[1] for step in _epoch(whole)])
    newest = Batches(store, part, CONFIG, BATCH_SIZE, 5, newest_share=0.3)
    read = [newest.users(step)[1] for step in _epoch(newest)]
    first = newest.first_time
    assert sorted(np.concatenate(read)) == sorted(every[every >= first])
    # All of the second that the share begins in.
    assert (every > first).sum() < 0.3 * len(every) <= newest.num_requests
    assert newest.num_requests < whole.num_requests
    assert whole.first_time == 0


def test_parts_need_a_validation_time(store: Store, tmp_path: Path) -> None:
    write_store(
        tmp_path / "old",
        schema=SCHEMA,
        vocabularies=(),
        shards=store.shards,
        details={},
    )
    old = Store(tmp_path / "old")
    assert Batches(old, "train", CONFIG, 4, 0).num_requests
    with pytest.raises(InputError, match="has no validation time"):
        Batches(old, "validation", CONFIG, 4, 0)
    with pytest.raises(ValueError, match="part=valid"):
        Batches(store, "valid", CONFIG, 4, 0)


@pytest.mark.parametrize("delay", [1, 4, 100])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_too_new_is_not_known(
    store: Store, split: str, delay: int
) -> None:
    config = dataclasses.replace(CONFIG, history_delay=delay)
    batches = Batches(store, split, config, BATCH_SIZE, 5)
    num_behaviors = 0
    for step in _epoch(batches):
        batch = batches.batch(step)
        for row, number in enumerate(batches.requests(step)[0].tolist()):
            expected = slow_request(store, split, number, 13, delay)
            check_row(batch, row, expected)
            num_behaviors += len(expected["behavior_time"])
    assert (num_behaviors > 0) == (delay < 100)


def test_a_fresh_object_goes_on_with_the_next_batch(store: Store) -> None:
    old = _train(store)
    steps = range(2 * old.num_batches + 3)
    walked = [old.batch(step) for step in steps]
    for step in (0, 5, old.num_batches - 1, old.num_batches, steps[-1]):
        _assert_equal(_train(store).batch(step), walked[step])
    # Going back is possible, too.
    _assert_equal(old.batch(1), walked[1])


def test_each_epoch_and_seed_has_an_order_of_its_own(store: Store) -> None:
    batches = _train(store)
    orders = [_requests(batches, _epoch(batches, n)) for n in range(3)]
    orders.append(_requests(_train(store, seed=6), _epoch(batches)))
    for index, order in enumerate(orders):
        for other in orders[:index]:
            assert order != other
            # Other batches, and not the same ones in another order.
            assert set(map(frozenset, order)) != set(map(frozenset, other))
        numbers = sorted(number for batch in order for number in batch)
        assert numbers == list(range(batches.num_requests))


def test_batches_of_all_lengths_are_mixed(store: Store) -> None:
    batches = _train(store)
    lengths = [batches.requests(step)[1] for step in _epoch(batches)]
    assert lengths != sorted(lengths)


def test_without_a_seed_the_order_is_the_store_s(store: Store) -> None:
    batches = _train(store, seed=None)
    order = _requests(batches, _epoch(batches))
    assert order == _requests(batches, _epoch(batches, 1))
    by_length: dict[int, list[int]] = {}
    for step in _epoch(batches):
        numbers, length = batches.requests(step)
        by_length.setdefault(length, []).extend(numbers.tolist())
    assert list(by_length) == [3, 7, 13]
    for numbers in by_length.values():
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 6])
def test_parts_together_are_the_whole(store: Store, num_parts: int) -> None:
    batches = Batches(store, "train", CONFIG, 6, 5)
    num_empty = 0
    for step in _epoch(batches):
        parts = [
            batches.batch(step, part, num_parts) for part in range(num_parts)
        ]
        num_empty += sum(not p["candidate_mask"].any() for p in parts)
        together = {
            name: np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }
        _assert_equal(together, batches.batch(step))
    assert num_empty > 0 or num_parts < 6  # a part may be all filling


@each_order
def test_labels_agree_with_the_batch(
    store: Store, split: str, seed: int | None
) -> None:
    batches = Batches(store, split, CONFIG, BATCH_SIZE, seed)
    for step in _epoch(batches):
        batch = batches.batch(step)
        mask, label, user, request, weight = batches.labels(
            step, batch["label"].shape[1]
        )
        assert weight is None
        numbers, _ = batches.requests(step)
        np.testing.assert_array_equal(
            mask, batch["candidate_mask"][: len(numbers)]
        )
        np.testing.assert_array_equal(
            label, batch["label"][batch["candidate_mask"]]
        )
        requests = [
            slow_request(store, split, number, CONFIG.max_history)
            for number in numbers.tolist()
        ]
        rows = {id_: row for row, id_ in enumerate(_user_ids(store))}
        assert user.tolist() == [
            rows[one["raw_user"]] for one in requests for _ in one["label"]
        ]
        assert request.tolist() == [
            number
            for number, one in zip(numbers.tolist(), requests, strict=True)
            for _ in one["label"]
        ]
        users, times = batches.users(step)
        assert users.tolist() == [r["raw_user"] for r in requests]
        assert times.tolist() == [r["request_time"] for r in requests]


@pytest.mark.parametrize("split", ["train", "test"])
def test_certain_requests(store: Store, split: str) -> None:
    batches = Batches(store, split, CONFIG, 4, 5)
    by_length: dict[int, list[int]] = {}
    for step in _epoch(batches):
        numbers, length = batches.requests(step)
        by_length.setdefault(length, []).extend(numbers.tolist())
    shortest = by_length[min(by_length)]
    # Of every shard, in no order, and one of them twice.
    mixed = [number for own in by_length.values() for number in own[::-3]]
    for numbers, length in (
        (shortest[::-1], min(by_length)),
        ([*mixed, mixed[0]], max(by_length)),
    ):
        batch = batches.batch_of(np.array(numbers))
        assert batch["behavior_time"].shape == (len(numbers), length)
        for row, number in enumerate(numbers):
            expected = slow_request(store, split, number, CONFIG.max_history)
            check_row(batch, row, expected)


def test_one_batch_may_hold_all(store: Store) -> None:
    config = DataConfig(max_history=13, length_buckets=(13,))
    batches = Batches(store, "test", config, 1000, 0)
    assert batches.num_batches == 1
    mask = batches.batch(0)["candidate_mask"]
    assert mask.any(axis=1).sum() == store.num_requests("test")


def test_a_shard_may_lack_users(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", (6, 0, 4))
    batches = _train(store)
    requests = _requests(batches, _epoch(batches))
    numbers = sorted(number for batch in requests for number in batch)
    assert numbers == list(range(store.num_requests("train")))
    for step in _epoch(batches):
        batches.batch(step)


def test_batch_size_is_checked(store: Store) -> None:
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        Batches(store, "train", CONFIG, 0, None)


def test_worker_is_checked(store: Store) -> None:
    for worker, num_workers in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"Received: worker={worker}"):
            Batches(
                store,
                "train",
                CONFIG,
                4,
                0,
                worker=worker,
                num_workers=num_workers,
            )
    with pytest.raises(InputError, match=r"3 shards, too few for 4 workers"):
        Batches(store, "train", CONFIG, 4, 0, worker=0, num_workers=4)


def test_workers_read_shards_of_their_own(store: Store) -> None:
    own = store.num_requests("train")
    first = np.cumsum(
        [0, *(s.splits["train"].num_requests for s in store.shards)]
    )
    workers = [
        Batches(store, "train", CONFIG, 3, 5, worker=w, num_workers=2)
        for w in range(2)
    ]
    assert sum(batches.num_requests for batches in workers) == own
    seen = []
    num_fillers = 0
    for step in _epoch(workers[0], 2):
        lengths = set()
        for worker, batches in enumerate(workers):
            numbers, length = batches.requests(step)
            batch = batches.batch(step)
            lengths.add(length)
            shards = np.searchsorted(first, numbers, side="right") - 1
            assert (shards % 2 == worker).all()
            for row, number in enumerate(numbers.tolist()):
                check_row(batch, row, slow_request(store, "train", number, 13))
            assert not batch["candidate_mask"][len(numbers) :].any()
            seen += numbers.tolist()
            num_fillers += not len(numbers)
        assert len(lengths) == 1
    assert sorted(seen) == list(range(own))
    # The first worker has two shards of three: the other one runs out.
    assert num_fillers > 0


def test_small_windows_read_everything_once(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", (5, 9, 0, 7, 3, 8, 6))
    wide = _train(store)
    config = dataclasses.replace(CONFIG, shuffle_shards=2)
    narrow = Batches(store, "train", config, BATCH_SIZE, 5)
    assert narrow.num_batches == wide.num_batches
    for number in range(3):
        order = _requests(narrow, _epoch(narrow, number))
        numbers = sorted(number for batch in order for number in batch)
        assert numbers == list(range(store.num_requests("train")))
        assert order != _requests(wide, _epoch(wide, number))


def test_shards_are_not_held_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store", (5, 9, 0, 7, 3, 8, 6))
    opened: list[weakref.ref[Shard]] = []
    open_shard = Shard.open

    def watched(*arguments: Any) -> Shard:
        shard = open_shard(*arguments)
        opened.append(weakref.ref(shard))
        return shard

    monkeypatch.setattr(Shard, "open", watched)
    config = dataclasses.replace(CONFIG, shuffle_shards=2)
    batches = Batches(store, "train", config, BATCH_SIZE, 5)
    for step in _epoch(batches):
        batches.batch(step)
        assert sum(shard() is not None for shard in opened) <= 4
    assert len(opened) > 7


def test_steps_are_counted_in_requests(store: Store) -> None:
    batches = _train(store)
    assert batches.num_requests % BATCH_SIZE
    for count in (0, 1, batches.num_batches - 1, 2 * batches.num_batches + 5):
        expected = sum(len(batches.requests(s)[0]) for s in range(count))
        assert batches.count_requests(count) == expected


def _write(path: Path, shards: Iterable[Shard]) -> Store:
    write_store(
        path, schema=SCHEMA, vocabularies=(), shards=list(shards), details={}
    )
    return Store(path)


def _of_text(shard: Shard, width: int) -> Shard:
    """Returns a shard whose user ids are text."""
    names = [f"ü{number:04d}".encode() for number in shard.user_id]
    return dataclasses.replace(shard, user_id=np.array(names, f"S{width}"))


def test_user_ids_may_be_text(store: Store, tmp_path: Path) -> None:
    # As wide as a shard needs.
    shards = [_of_text(s, 6 + i) for i, s in enumerate(store.shards)]
    text = Batches(
        _write(tmp_path / "text", shards), "train", CONFIG, BATCH_SIZE, 5
    )
    whole = _train(store)
    for step in _epoch(whole):
        batch = whole.batch(step)
        _assert_equal(batch, text.batch(step))
        user, time = whole.users(step)
        text_user, text_time = text.users(step)
        assert text_user.tolist() == [f"ü{n:04d}" for n in user.tolist()]
        np.testing.assert_array_equal(time, text_time)
        width = batch["label"].shape[1]
        for found, expected in zip(
            text.labels(step, width), whole.labels(step, width), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_a_history_of_100000(store: Store, tmp_path: Path) -> None:
    length, extra = 100_000, 3
    old = store.shards[0]
    (user,) = np.unique(old.splits["train"].user)[-1:]
    generator = np.random.default_rng(0)
    time = np.sort(generator.integers(1, 1_400_000_000, length + extra))
    # All of it before the user's own behaviors, and so before each request.
    at = old.behavior_offset[user]
    offset = old.behavior_offset + (np.arange(old.num_users + 1) > user) * len(
        time
    )
    requests = old.splits["train"]
    moved = requests.history_end + (requests.user >= user) * len(time)
    shard = dataclasses.replace(
        old,
        behavior_offset=offset,
        behavior_time=np.insert(old.behavior_time, at, time),
        behaviors={
            name: np.insert(
                column, at, generator.integers(1, 300, len(time))
            ).astype(column.dtype)
            for name, column in old.behaviors.items()
        },
        splits={
            split: dataclasses.replace(requests, history_end=moved)
            for split in old.splits
        },
    )
    config = DataConfig(max_history=length, length_buckets=(8, 64))
    long = Batches(
        _write(tmp_path / "long", [shard]), "train", config, BATCH_SIZE, 0
    )
    own = (np.asarray(requests.user) == user).nonzero()[0].tolist()
    num_short = 0
    for step in _epoch(long):
        numbers, _ = long.requests(step)
        batch = long.batch(step)
        if not set(own) & set(numbers.tolist()):
            # A request beside such a user does not pay for him.
            assert batch["behavior_time"].shape[1] <= 64
            num_short += len(numbers)
            continue
        assert set(numbers.tolist()) <= set(own)
        assert batch["behavior_time"].shape == (BATCH_SIZE, length)
        for row, number in enumerate(numbers.tolist()):
            end = moved[number]
            np.testing.assert_array_equal(
                batch["behavior_time"][row],
                shard.behavior_time[end - length : end],
            )
            for name, column in shard.behaviors.items():
                np.testing.assert_array_equal(
                    batch[f"behavior_{name}"][row], column[end - length : end]
                )
    assert num_short + len(own) == long.num_requests


def test_shuffle_shards_is_checked() -> None:
    with pytest.raises(ValueError, match="Received: shuffle_shards=0"):
        DataConfig(shuffle_shards=0)
