"""A preparation that was interrupted anywhere ends in the same store."""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.preparation import steps
from data_pipelines.preparation.encode_shard import EncodeTask
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.split_rule import FromTime
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from sparsectr.schema import CategoricalField
from tests.data_pipelines.same_store import said_of
from tests.data_pipelines.small_dataset import (
    SCHEMA,
    drawn_rows,
    prepared,
    small_dataset,
)


class Interruption:
    """Raises before the n-th step that changes names on the disk.

    A folder that was to be removed has lost some of its files by then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_steps = 0
        self.stop_before: int | None = None
        for name in ("rename", "replace", "unlink", "rmdir", "write_text"):
            self._intercept(monkeypatch, Path, name)
        self._intercept(monkeypatch, shutil, "rmtree")

    def start(self, stop_before: int | None) -> None:
        self.num_steps = 0
        self.stop_before = stop_before

    def _intercept(
        self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        original = getattr(owner, name)

        def intercepted(path: Path, *args: Any, **options: Any) -> Any:
            if name == "rmtree" and not Path(path).exists():
                return original(path, *args, **options)
            if self.num_steps == self.stop_before:
                if name == "rmtree":
                    _remove_half(Path(path))
                raise KeyboardInterrupt
            self.num_steps += 1
            return original(path, *args, **options)

        monkeypatch.setattr(owner, name, intercepted)


_unlink = Path.unlink


def _remove_half(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[::2]:
        _unlink(path)


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Interruption:
    return Interruption(monkeypatch)


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., Store]:
    """Prepares a tiny data set of few parts and two shards."""
    made = small_dataset(drawn_rows(3), tmp_path / "raw", unique_behaviors=True)

    def go(**options: Any) -> Store:
        return prepared(
            made, tmp_path / "store", num_shards=2, range_bytes=1500, **options
        )

    return go


def test_interrupted_before_every_step(
    go: Callable[..., Store], interruption: Interruption, tmp_path: Path
) -> None:
    interruption.start(None)
    whole = said_of(go())
    num_steps = interruption.num_steps
    assert num_steps > 50
    shutil.rmtree(tmp_path / "store")
    for step in range(num_steps):
        interruption.start(step)
        with pytest.raises(KeyboardInterrupt):
            go()
        interruption.start(None)
        assert said_of(go(resume=True)) == whole
        assert {path.name for path in tmp_path.iterdir()} == {"raw", "store"}
        shutil.rmtree(tmp_path / "store")


def test_interrupted_again_and_again(
    go: Callable[..., Store], interruption: Interruption, tmp_path: Path
) -> None:
    interruption.start(None)
    whole = said_of(go())
    shutil.rmtree(tmp_path / "store")
    for length in (16, 33):
        for num_stops in itertools.count():
            interruption.start(length)
            try:
                store = go(resume=True)
            except KeyboardInterrupt:
                assert num_stops < 100, "what was done is done again"
            else:
                break
        assert num_stops > 1
        assert said_of(store) == whole
        verify_store(store.path)
        shutil.rmtree(tmp_path / "store")


def test_interruption_says_how_to_go_on(
    go: Callable[..., Store], interruption: Interruption
) -> None:
    interruption.start(30)
    with pytest.raises(KeyboardInterrupt) as caught:
        go()
    assert caught.value.__notes__ == ["Go on with --resume."]


def test_full_disk(
    go: Callable[..., Store],
    interruption: Interruption,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interruption.start(None)
    whole = said_of(go())
    shutil.rmtree(tmp_path / "store")
    save = np.save
    num_saved = 0

    def fail(file: Path, *args: Any, **options: Any) -> None:
        nonlocal num_saved
        num_saved += 1
        if num_saved in (3, 25, 44, 60):
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(file))
        save(file, *args, **options)

    monkeypatch.setattr("numpy.save", fail)
    for _ in range(4):
        with pytest.raises(OSError, match="No space left") as caught:
            go(resume=True)
        assert caught.value.__notes__ == ["Go on with --resume."]
        assert not (tmp_path / "store").exists()
    store = go(resume=True)
    assert said_of(store) == whole
    verify_store(store.path)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "store"}


def test_what_resume_refuses(
    interruption: Interruption, tmp_path: Path
) -> None:
    rows = drawn_rows(3)
    made = small_dataset(rows, tmp_path / "raw")
    store = tmp_path / "store"
    interruption.start(30)
    with pytest.raises(KeyboardInterrupt):
        prepared(made, store)
    interruption.start(None)

    def refuse(
        message: str, dataset: RawDataset = made, **options: Any
    ) -> None:
        with pytest.raises(InputError, match=message):
            prepared(dataset, store, **options)
        # What was done is still there.
        assert (tmp_path / "store.partial" / "sources.json").exists()
        assert not store.exists()

    refuse("holds a preparation that was interrupted. Finish .* --resume")
    refuse("its num_shards differ", resume=True, num_shards=2)
    refuse("its range_bytes differ", resume=True, range_bytes=7)
    refuse("its sample_requests differ", resume=True, sample_requests=0)
    later = dataclasses.replace(made, split=FromTime(time=6, rule="from 5 on"))
    refuse("its split differ", later, resume=True)
    field = CategoricalField(name="thing", table="item")
    schema = dataclasses.replace(SCHEMA, user_fields=(field,))
    other = dataclasses.replace(made, schema=schema)
    refuse("its schema differ", other, resume=True)
    elsewhere = small_dataset(rows, tmp_path / "elsewhere")
    refuse("its files differ", elsewhere, resume=True)
    raw = tmp_path / "raw" / "users.parquet"
    state = raw.stat()
    os.utime(raw, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    refuse("its files differ", resume=True)
    os.utime(raw, ns=(state.st_atime_ns, state.st_mtime_ns))
    # With as many processes as one likes.
    prepared(made, store, resume=True, num_workers=2)


def test_resume_without_an_interruption_prepares(
    go: Callable[..., Store], tmp_path: Path
) -> None:
    whole = said_of(go())
    shutil.rmtree(tmp_path / "store")
    assert said_of(go(resume=True)) == whole
    with pytest.raises(InputError, match="is not empty"):
        go()


def test_resume_of_a_whole_store(tmp_path: Path) -> None:
    rows = drawn_rows(3)
    made = small_dataset(rows, tmp_path / "raw")
    store = tmp_path / "store"
    prepared(made, store)

    def state() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in store.rglob("*")}

    before = state()
    # Neither parts nor processes change a store, nor does a copy of the files.
    prepared(made, store, resume=True, range_bytes=7, num_workers=2)
    elsewhere = small_dataset(rows, tmp_path / "elsewhere")
    prepared(elsewhere, store, resume=True)

    def refuse(what: str, dataset: RawDataset, **options: Any) -> None:
        said = f"store is a whole store, but its {what} differ"
        with pytest.raises(InputError, match=said):
            prepared(dataset, store, resume=True, **options)

    refuse("num_shards", made, num_shards=2)
    refuse("sample_requests", made, sample_requests=0)
    later = dataclasses.replace(made, split=FromTime(time=6, rule="from 5 on"))
    refuse("split", later)
    field = CategoricalField(name="thing", table="item")
    schema = dataclasses.replace(SCHEMA, user_fields=(field,))
    refuse("schema", dataclasses.replace(made, schema=schema))
    # As many bytes as before.
    user, time, thing, price, label, request = rows["impressions"][0]
    first = (user, time, thing, price, 1 - label, request)
    flipped = {**rows, "impressions": [first, *rows["impressions"][1:]]}
    refuse("files", small_dataset(flipped, tmp_path / "flipped"))
    assert state() == before
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["asked"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="of an earlier version"):
        prepared(made, store, resume=True)


def test_two_at_once_are_refused(
    go: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = steps.encode_shard
    refused = []

    def encode(task: EncodeTask) -> Any:
        for resume in (True, False):
            with pytest.raises(InputError, match="is at work on") as caught:
                go(resume=resume)
            refused.append(caught)
        return original(task)

    monkeypatch.setattr(steps, "encode_shard", encode)
    verify_store(go().path)
    assert len(refused) == 4


def test_somebody_elses_folder_is_left_alone(
    go: Callable[..., Store], tmp_path: Path
) -> None:
    mine = tmp_path / "store.partial" / "mine"
    mine.parent.mkdir()
    mine.write_text("precious")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something else"):
            go(resume=resume)
    assert mine.read_text() == "precious"


def test_a_bad_row_leaves_nothing(tmp_path: Path) -> None:
    rows = drawn_rows(3)
    rows["users"] = [*rows["users"], rows["users"][0]]
    made = small_dataset(rows, tmp_path / "raw")
    with pytest.raises(
        InputError, match=r"users.parquet, row 3: repeated id. .* user_id=2"
    ):
        prepared(made, tmp_path / "store", num_shards=2)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_interrupted_after_a_bad_row(
    interruption: Interruption, tmp_path: Path
) -> None:
    # The last row is wrong, and a state without it must not be gone on with.
    rows = drawn_rows(3)
    rows["users"] = [*rows["users"], *((n, 0) for n in range(50, 70)), (50, 0)]
    made = small_dataset(rows, tmp_path / "raw")

    def go() -> None:
        with pytest.raises(InputError, match="row 23: repeated id"):
            prepared(made, tmp_path / "store", resume=True, range_bytes=1)

    interruption.start(None)
    go()
    num_steps = interruption.num_steps
    for step in range(num_steps - 10, num_steps):
        interruption.start(step)
        with pytest.raises(KeyboardInterrupt):
            prepared(made, tmp_path / "store", resume=True, range_bytes=1)
        interruption.start(None)
        go()
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]
