"""Folders of processes that died are removed, those of the living are not."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from data_pipelines.stores.new_folder import new_folder
from sparsectr.file_systems.partial_folder import partial_folder

_STAY = """
import sys
from pathlib import Path
from sparsectr.file_systems.partial_folder import partial_folder
with partial_folder(Path(sys.argv[1]), ".partial-") as folder:
    (folder / "file").write_text("")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left(repository: Path, tmp_path: Path) -> None:
    (tmp_path / ".partial-of-before").mkdir()
    (tmp_path / ".part").mkdir()
    (tmp_path / "1").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _STAY, tmp_path],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        theirs = process.stdout.readline().strip()
        assert theirs.startswith(".partial-")
        with partial_folder(tmp_path, ".partial-") as folder:
            assert folder.is_dir()
            # It lives.
            assert (tmp_path / theirs / "file").exists()
            names = {path.name for path in tmp_path.iterdir()}
            assert names == {".part", "1", theirs, folder.name}
        process.kill()
    assert (tmp_path / theirs / "file").exists()
    with partial_folder(tmp_path, ".partial-"):
        assert not (tmp_path / theirs).exists()
    assert {path.name for path in tmp_path.iterdir()} == {".part", "1"}


def test_removed_after_an_error(tmp_path: Path) -> None:
    with suppress(KeyError), partial_folder(tmp_path, ".a-") as folder:
        (folder / "file").write_text("")
        raise KeyError
    assert not any(tmp_path.iterdir())


def test_new_folder_after_a_killed_one(tmp_path: Path) -> None:
    left = tmp_path / ".raw.partial-1234" / "raw"
    left.mkdir(parents=True)
    with new_folder(tmp_path / "raw") as folder:
        (folder / "file").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "file"]
