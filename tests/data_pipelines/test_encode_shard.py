"""Codes of a shard become ids of the vocabularies, once."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.preparation import steps
from data_pipelines.preparation.build_shard import read_counts
from data_pipelines.preparation.encode_shard import (
    EncodedSummary,
    EncodeTask,
    count_ids,
    describe_files,
    encode_shard,
)
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.split_parts import count_rows
from sparsectr.schema import Table
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    small_dataset,
)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EncodeTask:
    """A shard that is coded, with the vocabularies of all."""
    tasks = []

    def stop(task: EncodeTask) -> EncodedSummary:
        tasks.append(task)
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "encode_shard", stop)
    made = small_dataset(drawn_rows(8), tmp_path / "raw")
    with pytest.raises(KeyboardInterrupt):
        prepared(made, tmp_path / "store", num_shards=2)
    return tasks[0]


def test_ids_are_places_in_the_vocabulary(task: EncodeTask) -> None:
    coded = Shard.open(task.coded, task.schema)
    codes = {k: np.array(v) for k, v in coded.behaviors.items()}
    values = {
        name: [None, *read_counts(task.coded, name)["value"].to_pylist()]
        for name in codes
    }
    encode_shard(task)
    assert not task.coded.exists()
    shard = Shard.open(task.folder, task.schema)
    assert np.array_equal(shard.behavior_time, coded.behavior_time)
    folder = task.folder.parent / "vocabularies"
    for name in ("item", "kind"):
        frequent = json.loads((folder / f"{name}.json").read_text("utf-8"))
        places = {value: n for n, value in enumerate(frequent, 2)}
        assert [
            0
            if values[name][code] is None
            else places.get(values[name][code], 1)
            for code in codes[name].tolist()
        ] == shard.behaviors[name].tolist()
        assert {0, 2, 3} < set(shard.behaviors[name].tolist())


def test_hashed_ids(task: EncodeTask, tmp_path: Path) -> None:
    tables = [
        Table(name="item", kind="hashed", size=7) if t.name == "item" else t
        for t in task.schema.tables
    ]
    schema = dataclasses.replace(task.schema, tables=tuple(tables))
    task = dataclasses.replace(task, schema=schema)
    missing = np.array(Shard.open(task.coded, schema).behaviors["item"]) == 0
    encode_shard(task)
    items = Shard.open(task.folder, schema).behaviors["item"]
    assert set(items[missing].tolist()) == {0}
    assert set(items[~missing].tolist()) <= set(range(2, 7))
    assert len(set(items.tolist())) > 3


def test_a_shard_is_written_once(
    task: EncodeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = encode_shard(task)
    monkeypatch.setattr("data_pipelines.preparation.encode_shard._encode", None)
    assert encode_shard(task) == summary


def test_a_shard_without_a_summary_is_written_again(task: EncodeTask) -> None:
    task.folder.mkdir()
    (task.folder / "half").write_text("written")
    partial = task.folder.with_name(f".{task.folder.name}.partial")
    partial.mkdir()
    (partial / "other").write_text("half")
    summary = encode_shard(task)
    assert not partial.exists()
    found = describe_files(task.folder, sorted(task.folder.rglob("*.npy")))
    assert summary.files == found
    assert not (task.folder / "half").exists()


def test_counts_and_hashes(task: EncodeTask) -> None:
    summary = encode_shard(task)
    shard = Shard.open(task.folder, task.schema)
    assert summary.counts == count_rows(shard, task.validation_time)
    parts = ("train_older", "validation")
    numbers = [summary.counts[part]["requests"] for part in parts]
    assert min(numbers) > 0
    assert sum(numbers) == shard.splits["train"].num_requests
    assert summary.ids == count_ids(shard)
    items = shard.behaviors["item"].tolist()
    assert summary.ids["behavior_item"] == {
        "rows": len(items),
        "missing": items.count(0),
        "out_of_vocabulary": items.count(1),
    }
    assert items.count(0)
    names = {
        f"{split} {name}"
        for split in ("train", "test")
        for name in ("user_age", "user_user_id", "candidate_thing")
    }
    assert set(summary.ids) == {"behavior_item", "behavior_kind", *names}
    files = sorted(p for p in task.folder.rglob("*") if p.is_file())
    assert sorted(summary.files) == [
        path.relative_to(task.folder).as_posix() for path in files
    ]
    for path in files:
        entry = summary.files[path.relative_to(task.folder).as_posix()]
        data = path.read_bytes()
        assert entry == {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
