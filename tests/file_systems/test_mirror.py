"""A remote folder is at each moment whole, or not named as such."""

import errno
import os
import shutil

import pytest

from sparsectr.errors import InputError
from sparsectr.file_systems import mirror as mirror_module
from sparsectr.file_systems import transfer
from sparsectr.file_systems.mirror import Mirror, check_free, publish
from tests.file_systems.memory_files import MemoryFiles

URL = "memory://runs/first"
FILES = {
    "a.json": b"{}",
    "empty": b"",
    "manifest.json": b"[]",
    "shard-0/a.npy": os.urandom(20_000),
    # More than Arrow sends at once, and more than one of our reads.
    "shard-0/large.npy": os.urandom(40_000_000),
}
LAST = ("config.json", "checkpoints/checkpoint")


@pytest.fixture
def memory(monkeypatch):
    files = MemoryFiles()
    monkeypatch.setattr(mirror_module, "file_system", lambda _: files)
    return files


@pytest.fixture
def mirror(tmp_path, memory):
    return Mirror(tmp_path, URL, LAST)


def write(folder, **files):
    """Writes files; `a__b` is `a/b`."""
    for name, content in files.items():
        path = folder.joinpath(*name.split("__"))
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def checkpoint(folder, step):
    """What a training run does every so many steps."""
    write(
        folder,
        metrics="line\n" * step,
        **{f"checkpoints__{step}.data": "d" * step},
        **{f"checkpoints__{step}.index": "i" * step},
        checkpoints__checkpoint=str(step),
    )
    for old in (folder / "checkpoints").glob(f"{step - 2}.*"):
        old.unlink()


def names_whole_files(files):
    """Whether the newest checkpoint that is named is there."""
    step = files.get(f"{URL}/checkpoints/checkpoint")
    return step is None or (
        files.get(f"{URL}/checkpoints/{int(step)}.data") == b"d" * int(step)
        and files.get(f"{URL}/checkpoints/{int(step)}.index")
        == b"i" * int(step)
    )


def test_sends_all_then_what_changed(mirror, tmp_path, memory):
    (tmp_path / "config.json").write_text("{}")
    mirror.send()
    checkpoint(tmp_path, 1)
    mirror.send()
    assert memory.done[0] == f"write {URL}/config.json"
    assert memory.done[-1] == f"write {URL}/checkpoints/checkpoint"
    assert len(memory.done) == 5
    mirror.send()
    assert len(memory.done) == 5


def test_removes_what_is_gone_and_nothing_else(mirror, tmp_path, memory):
    memory.files[f"{URL}/not ours"] = b"precious"
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
        mirror.send()
    assert memory.done[-3:] == [
        f"write {URL}/checkpoints/checkpoint",
        f"remove {URL}/checkpoints/1.data",
        f"remove {URL}/checkpoints/1.index",
    ]
    found = {name.removeprefix(f"{URL}/") for name in memory.files}
    assert found == {
        "not ours",
        "metrics",
        "checkpoints/checkpoint",
        *(f"checkpoints/{s}.{part}" for s in (2, 3) for part in _PARTS),
    }


_PARTS = ("data", "index")


def test_cut_off_anywhere_leaves_a_run_to_go_on_with(tmp_path, monkeypatch):
    def train(files):
        monkeypatch.setattr(mirror_module, "file_system", lambda _: files)
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        mirror = Mirror(folder, URL, LAST)
        (folder / "config.json").write_text("{}")
        mirror.send()
        for step in range(1, 6):
            checkpoint(folder, step)
            mirror.send()

    whole = MemoryFiles()
    train(whole)
    assert len(whole.done) > 20
    steps = set()
    for count in range(len(whole.done)):
        files = MemoryFiles()
        files.failure_after = count
        with pytest.raises(InputError, match="cut off"):
            train(files)
        assert names_whole_files(files.files), files.done
        steps.add(files.files.get(f"{URL}/checkpoints/checkpoint"))
    assert steps == {None, b"1", b"2", b"3", b"4", b"5"}


def test_names_whole_files_sees_a_half():
    files = {f"{URL}/checkpoints/checkpoint": b"1"}
    assert not names_whole_files(files)


@pytest.mark.io
def test_work_goes_on_from_what_is_there(folder, object_store):
    url = object_store.url(folder)
    mirror = Mirror.work_on(url, LAST, fetch=False)
    for step in (1, 2):
        checkpoint(mirror.folder, step)
        mirror.send()
    checkpoint(mirror.folder, 3)  # and killed before it is sent
    sent = object_store.contents(folder)
    assert {*sent} == {
        "metrics",
        "checkpoints/checkpoint",
        *(f"checkpoints/{s}.{part}" for s in (1, 2) for part in _PARTS),
    }
    mirror.close()

    mirror = Mirror.work_on(url, LAST, fetch=True)
    found = {
        path.relative_to(mirror.folder).as_posix(): path.read_bytes()
        for path in mirror.folder.rglob("*")
        if path.is_file()
    }
    assert found == sent
    checkpoint(mirror.folder, 3)
    mirror.send()
    mirror.close()
    sent = object_store.contents(folder)
    assert sent["checkpoints/checkpoint"] == b"3"
    assert "checkpoints/1.data" not in sent

    mirror = Mirror.work_on(url, LAST, fetch=False)
    assert list(mirror.folder.iterdir()) == []
    mirror.close()


@pytest.mark.io
def test_only_one_process_works_on_it(folder, object_store):
    url = object_store.url(folder)
    mirror = Mirror.work_on(url, LAST, fetch=False)
    (mirror.folder / "mine").touch()
    with pytest.raises(InputError, match=f"is at work on {url}"):
        Mirror.work_on(url, LAST, fetch=False)
    assert (mirror.folder / "mine").exists()
    mirror.close()
    Mirror.work_on(url, LAST, fetch=False).close()


@pytest.fixture
def source(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@pytest.mark.io
def test_every_file_is_there(source, folder, object_store):
    publish(source, object_store.url(f"{folder}/new"))
    assert object_store.contents(f"{folder}/new") == FILES


def test_markers_are_sent_last(source, memory):
    publish(source, URL, last=("manifest.json", "a.json"))
    assert memory.files == {f"{URL}/{k}": v for k, v in FILES.items()}
    assert memory.done[-2:] == [
        f"write {URL}/manifest.json",
        f"write {URL}/a.json",
    ]


@pytest.mark.parametrize("failure_after", range(len(FILES)))
def test_publish_cut_off(failure_after, source, memory):
    memory.failure_after = failure_after
    with pytest.raises(InputError, match="cut off"):
        publish(source, URL)
    assert f"{URL}/manifest.json" not in memory.files
    memory.failure_after = None
    if failure_after:
        with pytest.raises(InputError, match="is not empty"):
            publish(source, URL)


@pytest.mark.io
@pytest.mark.parametrize("taken", ["new/file", "new"])
def test_what_is_there_is_not_overwritten(taken, source, folder, object_store):
    object_store.put(f"{folder}/{taken}", b"precious")
    url = object_store.url(f"{folder}/new")
    for action in (lambda: check_free(url), lambda: publish(source, url)):
        with pytest.raises(InputError, match=f"^{url} exists and is not"):
            action()
    assert object_store.contents(folder) == {taken: b"precious"}


@pytest.mark.io
def test_neighbors_are_not_in_the_way(folder, object_store):
    object_store.put(f"{folder}/new-one/file", b"")
    check_free(object_store.url(f"{folder}/new"))


def test_marker_that_is_not_there(source, memory):
    with pytest.raises(ValueError, match="done"):
        publish(source, URL, last=("done",))
    assert memory.files == {}


@pytest.mark.io
def test_file_that_cannot_be_read_is_not_there_in_part(
    source, folder, object_store, monkeypatch
):
    copy = transfer._copy

    def fail(start, file, progress):
        if start.name.endswith("large.npy"):
            file.write(start.read(20_000_000))
            raise OSError(errno.EIO, "unreadable", start.name)
        copy(start, file, progress)

    monkeypatch.setattr(transfer, "_copy", fail)
    with pytest.raises(OSError, match="unreadable"):
        publish(source, object_store.url(folder))
    assert object_store.contents(folder).items() < FILES.items()


def test_failure_of_the_store_removes_nothing(source, memory, monkeypatch):
    memory.files[f"{URL}/empty"] = b"an older one"
    mirror = Mirror(source, URL, ())
    (source / "empty").write_bytes(b"new")

    def refuse(url, mode):
        raise InputError(f"{url}: refused to {mode}")

    monkeypatch.setattr(memory, "open", refuse)
    with pytest.raises(InputError, match="refused to wb"):
        mirror.send()
    assert memory.files == {f"{URL}/empty": b"an older one"}
