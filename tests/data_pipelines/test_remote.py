"""Raw files and stores in an object store."""

import json
from pathlib import Path

import pytest

from tests import commands
from tests.data_pipelines.raw_files import ALIBABA

pytestmark = pytest.mark.io

RAW = "raw/alibaba"
STORE = "stores/alibaba"


@pytest.fixture(scope="module")
def prepared(object_store, tmp_path_factory):
    """A folder in which the raw files of the object store were prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, text in ALIBABA.items():
        object_store.put(f"{RAW}/{name}", text.encode())
    result = _prepare(object_store, folder, STORE)
    assert result.returncode == 0, result.stderr
    assert "s3://bucket/stores/alibaba: a store of alibaba" in result.stdout
    return folder


def _prepare(object_store, folder: Path, store: str):
    return commands.run(
        "data_pipelines.prepare",
        "--dataset=alibaba",
        f"--raw_dir={object_store.url(RAW)}",
        f"--data_dir={object_store.url(store)}",
        cwd=folder,
    )


def test_store_is_that_of_local_files(prepared, object_store, tmp_path):
    assert list(prepared.iterdir()) == []
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    for name, text in ALIBABA.items():
        (raw_dir / name).write_bytes(text.encode())
    done = commands.run(
        "data_pipelines.prepare",
        "--dataset=alibaba",
        f"--raw_dir={raw_dir}",
        f"--data_dir={tmp_path / 'store'}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    local = {
        path.relative_to(tmp_path / "store").as_posix(): path.read_bytes()
        for path in (tmp_path / "store").rglob("*")
        if path.is_file()
    }
    assert object_store.contents(STORE) == local
    assert json.loads(local["manifest.json"])["counts"]["users"] == 3


def test_verify_and_describe_from_another_machine(
    prepared, object_store, tmp_path
):
    object_store.forget()
    url = object_store.url(STORE)
    verified = commands.run(
        "data_pipelines.prepare", "--verify", f"--data_dir={url}", cwd=tmp_path
    )
    assert verified.returncode == 0, verified.stderr
    assert "are as written" in verified.stdout
    described = commands.run(
        "data_pipelines.describe", f"--data_dir={url}", cwd=tmp_path
    )
    assert described.returncode == 0, described.stderr
    assert "alibaba" in described.stdout
    assert list(tmp_path.iterdir()) == []


def test_store_that_is_there_already(prepared, object_store, tmp_path):
    before = object_store.contents(STORE)
    result = _prepare(object_store, tmp_path, STORE)
    commands.assert_refused(
        result, "s3://bucket/stores/alibaba exists and is not empty"
    )
    assert object_store.contents(STORE) == before


def test_bad_row_leaves_nothing(prepared, object_store, tmp_path):
    name = f"{RAW}/behavior_log.csv"
    good = object_store.get(name)
    object_store.put(name, good.replace(b"cart", b"cast"))
    try:
        result = _prepare(object_store, tmp_path, "stores/bad")
    finally:
        object_store.put(name, good)
    commands.assert_refused(result, "line 9: `btag` is one of")
    assert object_store.contents("stores/bad") == {}
    assert [*(object_store.cache / "stores").rglob("*.partial")] == []


def test_raw_folder_that_is_not_there(object_store, tmp_path):
    result = commands.run(
        "data_pipelines.prepare",
        "--dataset=alibaba",
        "--raw_dir=s3://bucket/nothing",
        f"--data_dir={tmp_path / 'store'}",
        cwd=tmp_path,
    )
    commands.assert_refused(result, "s3://bucket/nothing does not exist")
    assert list(tmp_path.iterdir()) == []
