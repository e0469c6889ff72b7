"""What is wrong with a store is found, and said."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.preparation import encode_shard
from data_pipelines.preparation.encode_shard import (
    EncodeTask,
    count_ids,
    describe_files,
)
from data_pipelines.stores.content_digest import digest, shard_content
from data_pipelines.stores.shard import add_nested
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.store import SAMPLED_REQUESTS, Store, write_store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines.small_dataset import (
    SCHEMA,
    TEST_TIME,
    drawn_rows,
    prepared,
    small_dataset,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = small_dataset(drawn_rows(9), tmp_path / "raw")
    return prepared(made, tmp_path / "store", num_shards=2).path


def _refuse(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        verify_store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _change(path: Path, change: Callable[[Any], Any]) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), "utf-8")


def test_says_what_was_checked(path: Path) -> None:
    store = Store(path)
    said = verify_store(path)
    num_files = sum(file.is_file() for file in path.rglob("*")) - 1
    assert f"{num_files} files of " in said
    assert f"{store.manifest['counts']['behaviors']:,} behaviors" in said
    num_sampled = store.num_requests("test")
    assert f"{num_sampled} of them are kept as they were logged" in said
    assert said.endswith(store.manifest["content"])


def test_every_file_is_looked_at(path: Path) -> None:
    files = [f for f in path.rglob("*") if f.is_file()]
    files.remove(path / "manifest.json")
    assert len(files) == 2 * 23 + 5
    for number, file in enumerate(sorted(files)):
        data = file.read_bytes()
        # A byte of the values, the last but `number % 3`.
        place = len(data) - 1 - number % 3
        if data.startswith(b"\x93NUMPY"):
            place = max(place, len(data) - np.load(file).nbytes)
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        _refuse(path, "damaged|is not the file that was written|ask for")
        file.write_bytes(data[:-1])
        _refuse(path, "damaged|is not the file that was written")
        file.write_bytes(data + b"\0")
        _refuse(path, "is not the file that was written")
        file.unlink()
        _refuse(path, "is missing")
        file.write_bytes(data)
    verify_store(path)


@pytest.mark.parametrize(
    "name", ["mine", "vocabularies/mine.json", "shard-00000-of-00002/a.npy"]
)
def test_a_file_more(path: Path, name: str) -> None:
    (path / name).write_text("[]")
    _refuse(path, f"{name} is not in the manifest")


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (("counts", "users"), "counts"),
        (("counts", "test", "positives"), "counts"),
        (("counts", "validation", "requests"), "counts"),
        (
            ("out_of_vocabulary", "behavior_item", "missing"),
            "out_of_vocabulary",
        ),
    ],
)
def test_a_wrong_count(path: Path, keys: tuple[str, ...], key: str) -> None:
    def change(manifest: Any) -> None:
        for name in keys[:-1]:
            manifest = manifest[name]
        manifest[keys[-1]] += 1

    _change(path, change)
    _refuse(path, f"`{key}` of the manifest is not what the store holds")


def _next_item(column: list[Any]) -> None:
    for values in column:
        for place, value in enumerate(values):
            if value is not None:
                values[place] = value + 1
                return


def _first_is_absent(column: list[Any]) -> None:
    # As many values as before in all.
    place = next(n for n, values in enumerate(column) if len(values) > 1)
    moved = column[place].pop()
    column[place + 1].insert(0, moved)


def _nobody(column: list[Any]) -> None:
    column[-1] = 10**6


def _another(column: list[Any]) -> None:
    column[0], column[1] = column[1], column[0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("behavior_item", _next_item, "`behavior_item` is not what the store"),
        ("candidate_thing", _next_item, "`candidate_thing` is not what"),
        ("candidate_price", _next_item, "`candidate_price` is not what"),
        ("behavior_time", _next_item, "`behavior_time` is not what"),
        ("label", _next_item, "`label` is not what"),
        ("behavior_kind", _first_is_absent, "`behavior_kind` is not what"),
        ("request_time", _another, "`request_time` is not what"),
        ("request", _another, "is not what the store has"),
        ("request", _nobody, "names a request that is not there"),
    ],
)
def test_another_logged_value(
    path: Path, name: str, change: Callable[[list[Any]], None], message: str
) -> None:
    file = path / SAMPLED_REQUESTS
    table = pq.read_table(file)
    column = table[name].to_pylist()
    change(column)
    place = table.column_names.index(name)
    values = pa.array(column, table[name].type)
    pq.write_table(table.set_column(place, name, values), file)
    _change(path, lambda m: m["files"].update(describe_files(path, [file])))
    _refuse(path, message)


def test_an_error_in_the_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counts, digest and hashes are those of the wrong ids, and all agree.
    ids_of_codes = encode_shard._ids_of_codes

    def reversed_ids(task: EncodeTask, name: str) -> Any:
        ids = ids_of_codes(task, name)
        is_known = ids >= 2
        ids[is_known] = ids[is_known][::-1]
        return ids

    monkeypatch.setattr(encode_shard, "_ids_of_codes", reversed_ids)
    made = small_dataset(drawn_rows(9), tmp_path / "raw")
    path = prepared(made, tmp_path / "store", num_shards=2).path
    _refuse(path, "is not what the store has for it")


def test_another_digest(path: Path) -> None:
    _change(path, lambda manifest: manifest.update(content="0-0-0-0"))
    _refuse(path, "`content` of the manifest is not")


def test_another_validation_time(path: Path) -> None:
    store = Store(path)
    other = store.validation_time - 1
    _change(path, lambda m: m["split"].update(validation_time=other))
    _refuse(path, "`counts` of the manifest is not")
    counts = add_nested([count_rows(shard, other) for shard in store.shards])
    _change(path, lambda m: m.update(counts=counts))
    _refuse(path, "`content` of the manifest is not")
    test_time = store.manifest["split"]["test_time"]
    late = test_time + 1
    _change(path, lambda m: m["split"].update(validation_time=late))
    _refuse(path, f"time {late} is not before the test time {test_time}")


def test_no_validation_time(path: Path) -> None:
    _change(path, lambda m: m["split"].pop("validation_time"))
    _refuse(path, "has no validation time. Prepare it again")


@pytest.mark.parametrize("key", ["files", "counts", "content", "split"])
def test_an_absent_entry(path: Path, key: str) -> None:
    _change(path, lambda manifest: manifest.pop(key))
    _refuse(path, f"the manifest has no `{key}`")


def test_a_store_without_hashes(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    write_store(
        tmp_path / "other",
        schema=store.schema,
        vocabularies=[store.vocabulary(t.name) for t in SCHEMA.tables],
        shards=store.shards,
        details={},
    )
    _refuse(tmp_path / "other", "the manifest has no `files`")


# What only a look at the rows can find: the manifest says what is there.


Change = Callable[[Any, Store], Any]


def _spoil(path: Path, name: str, change: Change) -> None:
    """Changes a column of the first shard, and the manifest with it."""
    file = path / "shard-00000-of-00002" / f"{name}.npy"
    column = np.load(file)
    found = change(column, Store(path))
    np.save(file, column if found is None else found)
    shards = Store(path).shards

    def describe(manifest: Any) -> None:
        manifest["files"] |= describe_files(path, [file])
        time = manifest["split"]["validation_time"]
        manifest["counts"] = add_nested([count_rows(s, time) for s in shards])
        manifest["out_of_vocabulary"] = add_nested(
            [count_ids(shard) for shard in shards]
        )
        # Some rows contradict each other so much that they have no digest.
        with contextlib.suppress(IndexError, ValueError):
            content = digest([shard_content(shard) for shard in shards], time)
            manifest["content"] = content

    _change(path, describe)


def _behavior_after_request(time: Any, store: Store) -> None:
    shard = store.shards[0]
    """Moves the last behavior of a history to the second of its request."""
    requests = shard.splits["train"]
    for row, end in enumerate(requests.history_end):
        user = requests.user[row]
        first, last = shard.behavior_offset[user : user + 2]
        if end > first and (end == last or time[end] == requests.time[row]):
            time[end - 1] = requests.time[row]
            return
    raise ValueError("no such history")


def _swap(time: Any, store: Store) -> None:
    shard = store.shards[0]
    descending = np.flatnonzero(time[1:] > time[:-1])
    user = np.repeat(np.arange(shard.num_users), np.diff(shard.behavior_offset))
    place = next(n for n in descending if user[n] == user[n + 1])
    time[[place, place + 1]] = time[[place + 1, place]]


def _one_more(end: Any, store: Store) -> None:
    shard = store.shards[0]
    requests = shard.splits["train"]
    stop = shard.behavior_offset[requests.user + 1]
    end[np.flatnonzero(end < stop)[0]] += 1


def _one_less(end: Any, store: Store) -> None:
    shard = store.shards[0]
    requests = shard.splits["test"]
    start = shard.behavior_offset[requests.user]
    end[np.flatnonzero(end > start)[0]] -= 1


def _of_another_user(end: Any, store: Store) -> None:
    shard = store.shards[0]
    requests = shard.splits["test"]
    place = np.flatnonzero(requests.user > 0)[0]
    end[place] = shard.behavior_offset[requests.user[place]] - 1


def _beyond_table(name: str) -> Change:
    def change(ids: Any, store: Store) -> None:
        ids[-1] = store.schema.table(name).size

    return change


def _set(place: int, value: int) -> Change:
    def change(column: Any, store: Store) -> None:
        column[place] = value

    return change


def _descending(column: Any, store: Store) -> Any:
    return column[::-1].copy()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("behaviors/time", _behavior_after_request, "reaches its request"),
        ("behaviors/time", _swap, "not in the order of their times"),
        ("behaviors/time", _set(0, 0), "a behavior has no time"),
        ("train/history_end", _one_more, "of train reaches its request"),
        ("test/history_end", _one_less, "of test lacks a behavior before"),
        ("test/history_end", _of_another_user, "of test is not its user's"),
        ("test/history_end", _set(0, -1), "of test is not its user's"),
        ("test/history_end", _set(-1, 10**6), "of test is not its user's"),
        (
            "behaviors/item",
            _beyond_table("item"),
            "behaviors/item is not in its table",
        ),
        (
            "train/user_age",
            _beyond_table("age"),
            "train/user_age is not in its table",
        ),
        (
            "test/candidate_thing",
            _beyond_table("item"),
            "test/candidate_thing is not in its table",
        ),
        ("test/candidate_label", _set(3, 2), "a label of test is not 0 or 1"),
        ("train/user", _set(-1, 100), "of train has an unknown user"),
        ("train/user", _set(0, -1), "of train has an unknown user"),
        ("train/user", _descending, "not in the order of users and times"),
        ("train/time", _set(0, TEST_TIME - 1), "not in the order of users"),
        ("test/time", _set(0, TEST_TIME - 1), "on the wrong side of the split"),
        ("train/time", _set(-1, TEST_TIME), "on the wrong side of the split"),
        ("test/candidate_offset", _set(0, 1), "has no candidate of its own"),
        ("test/candidate_offset", _set(1, 0), "has no candidate of its own"),
        ("users/id", _descending, "user ids do not ascend"),
        ("users/behavior_offset", _set(1, 0), "in the order of their times"),
        ("users/behavior_offset", _set(0, 1), "histories overlap"),
        ("users/behavior_offset", _set(1, 70), "histories overlap"),
    ],
)
def test_rows_that_contradict_each_other(
    path: Path, name: str, change: Change, message: str
) -> None:
    _spoil(path, name, change)
    _refuse(path, message)
