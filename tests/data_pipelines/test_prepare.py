"""The command line, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.prepare import prepare
from data_pipelines.store import Store
from sparsectr.errors import InputError
from tests.data_pipelines import raw_files


def _run(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data_pipelines.prepare", *flags],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def test_writes_a_store(repository: Path, tmp_path: Path) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    data_dir = tmp_path / "data" / "movielens"
    result = _run(
        repository,
        "--dataset=movielens",
        f"--raw_dir={raw_dir}",
        f"--data_dir={data_dir}",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "ratings of a movie without features: 1" in result.stdout
    store = Store(data_dir)
    assert store.num_requests("train") == 6
    assert [path.name for path in data_dir.parent.iterdir()] == ["movielens"]
    # Readable by others, as any folder: not the mode of a temporary one.
    (tmp_path / "plain").mkdir()
    assert data_dir.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=alibaba"], "raw has no file raw_sample.csv"),
        (["--dataset=movielens"], "ratings.dat, line 2: 3 values where 4"),
        (["--dataset=movielens", "--test_start=2022-04-30"], "does not apply"),
        (["--dataset=kuairand", "--test_start=30.4."], "must be a date"),
        (["--dataset=netflix"], "netflix"),
        ([], "dataset"),
        (["--dataset=movielens", "--raw_dri=a"], "raw_dir"),
        (
            ["--dataset=movielens", "--data_dir=setup.py/a"],
            "setup.py is not a folder",
        ),
        (
            ["--dataset=movielens", "--data_dir=setup.py"],
            "exists and is not a folder",
        ),
    ],
)
def test_bad_input_is_one_line(
    repository: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    ratings = "1::1::5::100\n1::2::3\n"
    raw_dir = raw_files.write(
        tmp_path / "raw", raw_files.MOVIELENS | {"ratings.dat": ratings}
    )
    result = _run(
        repository,
        f"--raw_dir={raw_dir}",
        f"--data_dir={tmp_path / 'store'}",
        *flags,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_taken_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine").write_text("")
    with pytest.raises(InputError, match="store exists and is not empty"):
        prepare("movielens", tmp_path / "no such folder", tmp_path / "store")


def test_unwritable_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the answer is made up.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="is not writable"):
        prepare("movielens", tmp_path / "no such folder", tmp_path / "store")


def test_help_is_worth_reading(repository: Path) -> None:
    result = _run(repository, "--help")
    assert result.returncode == 0
    assert "behavior_log.csv" in result.stdout
    assert "--test_start" in result.stdout


def test_importing_defines_no_flags(repository: Path) -> None:
    code = (
        "import data_pipelines.prepare, sys; from absl import flags; "
        "assert 'dataset' not in flags.FLAGS; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
