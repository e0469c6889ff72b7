"""Folders at a remote place are whole once their marker is there."""

import os

import pytest

from sparsectr.errors import InputError
from sparsectr.file_systems import publish as publish_module
from sparsectr.file_systems.publish import check_free, publish
from tests.file_systems.memory_files import MemoryFiles

pytestmark = pytest.mark.io

FILES = {
    "a.json": b"{}",
    "empty": b"",
    "manifest.json": b"[]",
    "shard-0/a.npy": os.urandom(20_000),
    # More than Arrow sends at once.
    "shard-0/large.npy": os.urandom(30_000_000),
}
URL = "memory://stores/new"


@pytest.fixture
def source(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@pytest.fixture
def memory(monkeypatch):
    files = MemoryFiles()
    monkeypatch.setattr(publish_module, "file_system", lambda _: files)
    return files


def test_every_file_is_there(source, folder, object_store):
    publish(source, object_store.url(f"{folder}/new"))
    assert object_store.contents(f"{folder}/new") == FILES


def test_marker_is_last(source, memory):
    publish(source, URL, last=("manifest.json", "a.json"))
    assert memory.files == {f"{URL}/{k}": v for k, v in FILES.items()}
    assert memory.done[-2:] == [
        f"write {URL}/manifest.json",
        f"write {URL}/a.json",
    ]


@pytest.mark.parametrize("failure_after", range(len(FILES)))
def test_cut_off(failure_after, source, memory):
    memory.failure_after = failure_after
    with pytest.raises(InputError, match="cut off"):
        publish(source, URL)
    assert f"{URL}/manifest.json" not in memory.files
    memory.failure_after = None
    if failure_after:
        with pytest.raises(InputError, match="is not empty"):
            publish(source, URL)


@pytest.mark.parametrize("taken", ["new/file", "new"])
def test_what_is_there_is_not_overwritten(taken, source, folder, object_store):
    object_store.put(f"{folder}/{taken}", b"precious")
    url = object_store.url(f"{folder}/new")
    for action in (lambda: check_free(url), lambda: publish(source, url)):
        with pytest.raises(InputError, match=f"^{url} exists and is not"):
            action()
    assert object_store.contents(folder) == {taken: b"precious"}


def test_neighbors_are_not_in_the_way(folder, object_store):
    object_store.put(f"{folder}/new-one/file", b"")
    check_free(object_store.url(f"{folder}/new"))


def test_marker_that_is_not_there(source, memory):
    with pytest.raises(ValueError, match="done"):
        publish(source, URL, last=("done",))
    assert memory.files == {}
