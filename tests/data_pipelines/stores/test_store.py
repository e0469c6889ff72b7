import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.store import SAMPLED_REQUESTS, Store, write_store
from sparsectr.errors import InputError
from tests.data_pipelines import raw_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.ALIBABA)
    return prepare("alibaba", raw_dir, tmp_path / "store")


def _write_again(store: Store, path: Path) -> None:
    write_store(
        path,
        schema=store.schema,
        vocabularies=[store.vocabulary(t.name) for t in store.schema.tables],
        shards=store.shards,
        details={},
    )


def test_round_trip(store: Store, tmp_path: Path) -> None:
    _write_again(store, tmp_path / "again")
    files = sorted(p for p in store.path.rglob("*") if p.is_file())
    assert len(files) > 40
    for file in files:
        other = tmp_path / "again" / file.relative_to(store.path)
        if file.name not in ("manifest.json", SAMPLED_REQUESTS):
            assert other.read_bytes() == file.read_bytes()
    again = Store(tmp_path / "again")
    assert again.schema == store.schema
    assert store.sampled_requests == store.path / SAMPLED_REQUESTS
    assert again.sampled_requests is None


def test_layout_is_the_documented_one(store: Store) -> None:
    shard = store.shards[0]
    assert shard.user_id.dtype == np.int64
    assert shard.behavior_offset.dtype == np.int64
    assert shard.behavior_time.dtype == np.uint32
    requests = shard.splits["train"]
    assert requests.user.dtype == np.int32
    assert requests.users["age_level"].dtype == np.uint8
    assert requests.time.dtype == np.uint32
    assert requests.history_end.dtype == np.int64
    assert requests.candidate_offset.dtype == np.int64
    assert requests.candidates["brand"].dtype == np.uint8
    assert requests.candidates["price"].dtype == np.float32
    assert requests.label.dtype == np.uint8
    folder = store.path / "shard-00000-of-00001"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.npy")}
    assert "users/id.npy" in names
    assert "behaviors/btag.npy" in names
    assert "test/candidate_label.npy" in names
    assert "train/user_age_level.npy" in names
    assert store.schema.is_resolved
    for table in store.schema.tables:
        assert store.vocabulary(table.name).table == table


def test_columns_are_memory_mapped(store: Store) -> None:
    time = store.shards[0].behavior_time
    assert not time.flags.writeable
    # The pages are the file's own: what is written there is seen.
    path = next(store.path.glob("shard-*/behaviors/time.npy"))
    before = int(time[0])
    column = np.load(path, mmap_mode="r+")
    column[0] += 1
    assert int(time[0]) == before + 1


def test_counts_requests(store: Store) -> None:
    assert store.num_requests("train") == 3
    assert store.num_requests("test") == 1
    assert store.manifest["counts"] == {
        "users": 3,
        "behaviors": 4,
        "train": {"requests": 3, "candidates": 4, "positives": 1},
        "train_older": {"requests": 2, "candidates": 3, "positives": 1},
        "validation": {"requests": 1, "candidates": 1, "positives": 0},
        "test": {"requests": 1, "candidates": 1, "positives": 0},
    }


def _no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _manifest_cut_off(path: Path) -> None:
    file = path / "manifest.json"
    file.write_text(file.read_text()[:100])


def _other_version(path: Path) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 9}))


def _no_schema(path: Path) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["schema"]
    file.write_text(json.dumps(manifest))


def _half_seconds(path: Path) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["schema"]["time_zone"]["offsets"] = [[0, 5.5]]
    file.write_text(json.dumps(manifest))


def _other_json(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def _column(path: Path) -> Path:
    return path / "shard-00000-of-00001" / "behaviors" / "time.npy"


def _no_column(path: Path) -> None:
    _column(path).unlink()


def _column_cut_off(path: Path) -> None:
    _column(path).write_bytes(_column(path).read_bytes()[:-1])


def _column_empty(path: Path) -> None:
    _column(path).write_bytes(b"")


def _column_short(path: Path) -> None:
    np.save(_column(path), np.load(_column(path))[1:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is not a store"),
        (_no_manifest, "is not a store"),
        (_manifest_cut_off, "manifest.json is damaged"),
        (_other_version, "has version 9; this code reads versions 4"),
        (_no_schema, "manifest.json is damaged"),
        (_half_seconds, "json is damaged: `offsets` must be pairs of whole"),
        (_other_json, "does not describe a store"),
        (_no_column, "time.npy is missing"),
        (_column_cut_off, "time.npy is damaged"),
        (_column_empty, "time.npy is damaged"),
        (_column_short, "time.npy has shape (3,)"),
    ],
)
def test_damaged_store(
    store: Store, spoil: Callable[[Path], None], message: str
) -> None:
    path = store.path
    spoil(path)
    with pytest.raises(InputError, match=re.escape(message)):
        Store(path)


def test_damaged_vocabulary(store: Store) -> None:
    (store.path / "vocabularies" / "cate.json").write_text('["a"]')
    with pytest.raises(InputError, match=r"cate\.json is damaged"):
        store.vocabulary("cate")


def test_failure_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(shard: Shard, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("written")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Shard, "save", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        _write_again(store, tmp_path / "again")
    assert sorted(tmp_path.iterdir()) == before


def test_does_not_overwrite(store: Store) -> None:
    with pytest.raises(InputError, match="is not empty"):
        _write_again(store, store.path)
    Store(store.path)


def test_replaces_an_empty_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _write_again(store, tmp_path / "empty")
    Store(tmp_path / "empty")
