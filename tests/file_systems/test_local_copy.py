"""Copies in the cache are whole, current, and fetched once."""

import contextlib
import fcntl
import io
import itertools
import os
import pathlib
import time

import pytest

from sparsectr.errors import InputError
from sparsectr.file_systems import local_copy as local_copy_module
from sparsectr.file_systems import transfer
from sparsectr.file_systems.local_copy import (
    cache_folder,
    fetch_folder,
    local_copy,
)
from tests.file_systems.memory_files import MemoryFiles

pytestmark = pytest.mark.io

FILES = {
    "manifest.json": b"{}",
    "shard-0/users/id.npy": os.urandom(20_000),
    "shard-0/empty.npy": b"",
    "shard-1/users/id.npy": os.urandom(3_000_000),
}
URL = "memory://store"


@pytest.fixture
def store(folder, object_store, monkeypatch):
    monkeypatch.setattr(transfer, "_REQUEST_BYTES", 2**20)
    for name, content in FILES.items():
        object_store.put(f"{folder}/{name}", content)
    return object_store.url(folder)


@pytest.fixture
def settled(monkeypatch):
    """What was written a moment ago counts as old."""
    monkeypatch.setattr(transfer, "SETTLED_SECONDS", -3600)


def contents(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def identities(path):
    """What changes for each file that is put in place again."""
    return {p: p.stat().st_ino for p in path.rglob("*") if p.is_file()}


def test_folder(store, object_store):
    path = local_copy(store)
    assert contents(path) == FILES
    assert path.is_relative_to(object_store.cache)
    assert local_copy(f"{store}/") == path


def test_file_keeps_its_name(store):
    path = local_copy(f"{store}/shard-1/users/id.npy")
    assert path.name == "id.npy"
    assert path.read_bytes() == FILES["shard-1/users/id.npy"]


def test_files_of_one_name_do_not_meet(store):
    first = local_copy(f"{store}/shard-0/users/id.npy")
    second = local_copy(f"{store}/shard-1/users/id.npy")
    assert first.read_bytes() == FILES["shard-0/users/id.npy"]
    assert second.read_bytes() == FILES["shard-1/users/id.npy"]


@pytest.mark.usefixtures("settled")
def test_is_not_fetched_again(store):
    path = local_copy(store)
    before = identities(path)
    assert identities(local_copy(store)) == before
    file = local_copy(f"{store}/manifest.json")
    before = file.stat().st_ino
    assert local_copy(f"{store}/manifest.json").stat().st_ino == before


@pytest.mark.usefixtures("settled")
def test_what_changed_is_fetched_again(store, folder, object_store):
    path = local_copy(store)
    before = identities(path)
    object_store.put(f"{folder}/shard-0/empty.npy", b"x")  # another size
    time.sleep(1.1)
    object_store.put(f"{folder}/manifest.json", b"[]")  # another second
    object_store.put(f"{folder}/new", b"new")
    object_store.delete(f"{folder}/shard-0/users/id.npy")
    after = identities(local_copy(store))
    expected = {
        **FILES,
        "shard-0/empty.npy": b"x",
        "manifest.json": b"[]",
        "new": b"new",
    }
    del expected["shard-0/users/id.npy"]
    assert contents(path) == expected
    same = {file for file in before.items() if file in after.items()}
    assert same == {(f := path / "shard-1/users/id.npy", before[f])}


def test_change_within_the_same_second_is_seen(store, folder, object_store):
    for number in range(3):
        content = str(number).encode()
        url = object_store.put(f"{folder}/number", content)
        assert local_copy(url).read_bytes() == content
        assert (local_copy(store) / "number").read_bytes() == content


def test_killed_fetch_leaves_nothing_half(store, monkeypatch):
    class Killed(BaseException):
        pass

    replace = pathlib.Path.replace

    def kill(partial, target):
        if partial.name == ".id.npy.partial":
            raise Killed
        return replace(partial, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", kill)
        with pytest.raises(Killed):
            local_copy(store)
    left = contents(cache_folder("copies", store))
    assert any(name.endswith(".id.npy.partial") for name in left)
    assert not any(name.endswith("/id.npy") for name in left)
    assert contents(local_copy(store)) == FILES


def test_one_process_at_a_time_fetches(store, monkeypatch):
    def fetch(*arguments):
        with (
            (cache_folder("copies", store) / ".lock").open() as lock,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        transfer.fetch(*arguments)

    monkeypatch.setattr(local_copy_module, "fetch", fetch)
    assert contents(local_copy(store)) == FILES


def test_folder_that_changes_meanwhile_is_one_of_its_states(
    tmp_path, monkeypatch
):
    files = MemoryFiles({f"{URL}/checkpoint": b"1", f"{URL}/ckpt-1": b"one"})

    def fetch(*arguments):
        monkeypatch.undo()
        del files.files[f"{URL}/ckpt-1"]
        files.files.update(
            {f"{URL}/checkpoint": b"22", f"{URL}/ckpt-22": b"two"}
        )
        transfer.fetch(*arguments)

    monkeypatch.setattr(local_copy_module, "fetch", fetch)
    fetch_folder(files, URL, tmp_path / "copy")
    assert contents(tmp_path / "copy") == {
        "checkpoint": b"22",
        "ckpt-22": b"two",
    }


def test_folder_that_never_stands_still(tmp_path, monkeypatch):
    files = MemoryFiles({f"{URL}/log": b""})

    def fetch(*arguments):
        transfer.fetch(*arguments)
        files.files[f"{URL}/log"] += b"line\n"

    monkeypatch.setattr(local_copy_module, "fetch", fetch)
    with pytest.raises(InputError, match=f"^{URL} keeps changing"):
        fetch_folder(files, URL, tmp_path / "copy")


def test_file_that_is_shorter_than_listed(tmp_path, monkeypatch):
    files = MemoryFiles({f"{URL}/a": b"abc"})
    monkeypatch.setattr(
        files, "open", lambda *_: contextlib.nullcontext(io.BytesIO(b"bc"))
    )
    with pytest.raises(InputError, match="keeps changing"):
        fetch_folder(files, URL, tmp_path)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["../a", "a/../../b", "a//b", "./a"])
def test_name_that_leaves_the_folder(name, tmp_path):
    files = MemoryFiles({f"{URL}/{name}": b""})
    with pytest.raises(InputError, match="which no folder can"):
        fetch_folder(files, URL, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_trouble_here_is_not_blamed_on_the_server(store):
    file = local_copy(store) / "manifest.json"
    file.unlink()
    partial = file.with_name(".manifest.json.partial")
    partial.mkdir()  # where a file is to be written
    with pytest.raises(IsADirectoryError) as error:
        local_copy(store)
    assert error.value.filename == str(partial)


def test_long_transfer_shows_how_far_it_is(store, monkeypatch, capfd):
    local_copy(store)
    assert capfd.readouterr().err == ""
    (local_copy(store) / "shard-1/users/id.npy").unlink()
    now = itertools.count(step=6.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    local_copy(store)
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("fetch: 100%|##########| 3.02M/3.02M [")
    assert line.endswith("B/s]")


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("SPARSECTR_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache_folder("copies", "s3://bucket/a/name")
    assert folder.parent == tmp_path / ".cache" / "sparsectr" / "copies"
    assert folder.name.startswith("name-")
