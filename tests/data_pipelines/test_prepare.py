"""The command line, as a user runs it, and whole data sets."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import write_sample
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines import raw_files
from tests.data_pipelines.leaks import check_histories
from tests.data_pipelines.same_store import said_of


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
        "--time_fields=behavior_hour,gap_to_request",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "ratings of a movie without features: 1" in result.stdout
    store = Store(data_dir)
    assert store.num_requests("train") == 6
    assert store.schema.time_fields == ("behavior_hour", "gap_to_request")
    assert store.sampled_requests is not None
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
        (
            ["--dataset=movielens", "--validation_time=29.4."],
            "must be a date such as 2022-04-29",
        ),
        (
            ["--dataset=movielens", "--validation_fraction=2"],
            "must be between 0 and 1. Received: 2.0",
        ),
        (
            ["--dataset=movielens", "--time_fields=request_hour,hour"],
            "--time_fields: there is no time field 'hour'; known are behavior",
        ),
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


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("data_pipelines.preparation.steps.Steps.run", fail)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("resume", [False, True])
def test_taken_folder_is_refused_before_the_work(
    tmp_path: Path, resume: bool
) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine").write_text("")
    with pytest.raises(InputError, match="store exists and is not empty"):
        prepare("movielens", raw_dir, tmp_path / "store", resume=resume)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "store"}


@pytest.mark.usefixtures("no_work")
def test_unwritable_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    # The superuser may write anywhere, so the answer is made up.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="is not writable"):
        prepare("movielens", raw_dir, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_people_can_be_left_out(repository: Path, tmp_path: Path) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    flags = ["--dataset=movielens", f"--raw_dir={raw_dir}"]
    store = tmp_path / "store"
    result = _run(
        repository, *flags, f"--data_dir={store}", "--sample_requests=0"
    )
    assert result.returncode == 0, result.stderr
    assert Store(store).sampled_requests is None
    assert "0 of them are kept as they were logged" in verify_store(store)
    result = _run(
        repository, *flags, f"--data_dir={store}", "--sample_requests=-1"
    )
    assert result.returncode == 2
    assert "sample_requests" in result.stderr


def test_verify(repository: Path, tmp_path: Path) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    store = prepare("movielens", raw_dir, tmp_path / "store")
    flags = ("--verify", f"--data_dir={store.path}")
    result = _run(repository, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout == verify_store(store.path) + "\n"
    (store.path / "vocabularies" / "genre.json").unlink()
    result = _run(repository, *flags)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {store.path}/vocabularies/genre.json is missing.\n"
    )


def test_interrupted_preparation_without_resume(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    data_dir = tmp_path / "store"

    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.preparation.steps.encode_shard", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare("movielens", raw_dir, data_dir, num_shards=2)
    flags = ("--dataset=movielens", f"--raw_dir={raw_dir}", "--num_shards=2")
    result = _run(repository, *flags, f"--data_dir={data_dir}")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {data_dir}.partial holds a preparation that was interrupted. "
        "Finish it with --resume, or remove that folder.\n"
    )
    result = _run(repository, *flags, f"--data_dir={data_dir}", "--resume")
    assert result.returncode == 0, result.stderr
    result = _run(repository, *flags, f"--data_dir={data_dir}", "--resume")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        f"{data_dir}: nothing to do, it is a whole store of movielens, of "
        "these files and flags\n"
    )
    assert result.stderr == ""
    whole = prepare("movielens", raw_dir, tmp_path / "whole")
    assert said_of(Store(data_dir)) == said_of(whole)


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


@pytest.fixture(scope="module")
def alibaba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of three parts of a MiB."""
    folder = tmp_path_factory.mktemp("alibaba") / "raw"
    write_sample(folder, num_users=130, seed=3)
    return folder


def _check_shards(
    dataset: str, raw_dir: Path, folder: Path, *made: dict[str, Any]
) -> None:
    """Checks that stores made in several ways hold the same."""
    said = []
    for number, options in enumerate(made):
        path = folder / f"store-{number}"
        store = prepare(dataset, raw_dir, path, **options)
        assert check_histories(store) > 0
        assert "content " + store.manifest["content"] in verify_store(path)
        assert len(store.shards) == options["num_shards"]
        said.append(said_of(store))
        assert said[-1] == said[0]
        shutil.rmtree(path)
    assert not any(folder.iterdir())


def test_one_content_of_alibaba(alibaba: Path, tmp_path: Path) -> None:
    _check_shards(
        "alibaba",
        alibaba,
        tmp_path,
        {"num_shards": 1},
        {"num_shards": 2, "range_bytes": 200_000},
        {"num_shards": 7, "range_bytes": 1 << 20},
    )


def test_one_content_of_movielens(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    ratings = "".join(
        f"{user}::{movie}::{rating}::{1_000_000_000 + time}\n"
        for user, movie, rating, time in zip(
            random.integers(1, 50, 3000),
            random.integers(1, 200, 3000),
            random.integers(1, 6, 3000),
            random.integers(0, 900, 3000),
            strict=True,
        )
    )
    raw_dir = raw_files.write(
        tmp_path / "raw", raw_files.MOVIELENS | {"ratings.dat": ratings}
    )
    (tmp_path / "stores").mkdir()
    _check_shards(
        "movielens",
        raw_dir,
        tmp_path / "stores",
        {"num_shards": 1},
        {"num_shards": 2, "range_bytes": 7777},
        {"num_shards": 9, "range_bytes": 1 << 20},
    )


def test_one_content_of_kuairand(shared_data: Path, tmp_path: Path) -> None:
    _check_shards(
        "kuairand",
        shared_data / "kuairand_pure",
        tmp_path,
        {"num_shards": 1, "num_workers": 1},
        {"num_shards": 3, "num_workers": 1, "range_bytes": 1 << 20},
    )


# Processes that are killed.


def _start(
    repository: Path, raw_dir: Path, data_dir: Path, *flags: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "data_pipelines.prepare",
            "--dataset=alibaba",
            f"--raw_dir={raw_dir}",
            f"--data_dir={data_dir}",
            "--num_shards=3",
            "--range_mib=1",
            *flags,
        ],
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=600)
    return process.returncode, stderr


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)


def _kill_at_random(
    repository: Path,
    raw_dir: Path,
    folder: Path,
    num_kills: int,
    workers: tuple[int, ...],
) -> None:
    """Kills preparations, resumes them, and looks at what comes out.

    A resumed one is killed again, until one is done; then the next begins.
    """
    whole = said_of(prepare("alibaba", raw_dir, folder / "whole", num_shards=3))
    data_dir = folder / "store"
    begun = folder / "store.partial"
    first = _start(repository, raw_dir, data_dir, "--num_workers=1")
    _wait_for(begun, first)
    start = time.monotonic()
    assert _finish(first)[0] == 0
    seconds = time.monotonic() - start
    assert said_of(Store(data_dir)) == whole
    shutil.rmtree(data_dir)
    # One in each part of the time, in any order.
    random = np.random.default_rng(2)
    delays = (np.arange(num_kills) + random.random(num_kills)) / num_kills
    random.shuffle(delays)
    killed = 0
    while killed < num_kills or begun.exists():
        flags = (f"--num_workers={workers[killed % len(workers)]}", "--resume")
        process = _start(repository, raw_dir, data_dir, *flags)
        if killed < num_kills:
            _wait_for(begun, process)
            time.sleep(delays[killed] * seconds)
            process.kill()
            if _finish(process)[0] == -signal.SIGKILL:
                killed += 1
            else:
                # It was done by then: the first shared the machine.
                seconds *= 0.9
        else:
            status, stderr = _finish(process)
            assert status == 0, stderr
        if not begun.exists() and data_dir.exists():
            assert said_of(Store(data_dir)) == whole
            verify_store(data_dir)
            assert {p.name for p in folder.iterdir()} == {"whole", "store"}
            shutil.rmtree(data_dir)
    assert {p.name for p in folder.iterdir()} == {"whole"}


def test_killed_at_ten_random_moments(
    repository: Path, alibaba: Path, tmp_path: Path
) -> None:
    _kill_at_random(repository, alibaba, tmp_path, 10, (1, 1, 2, 1))


@pytest.mark.slow
def test_killed_at_many_random_moments(
    repository: Path, alibaba: Path, tmp_path: Path
) -> None:
    _kill_at_random(repository, alibaba, tmp_path, 60, (2, 1))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_interrupt_says_how_to_go_on(
    repository: Path, alibaba: Path, tmp_path: Path, num_workers: int
) -> None:
    flag = f"--num_workers={num_workers}"
    process = _start(repository, alibaba, tmp_path / "store", flag)
    # By then the other processes, if there are any, are at work.
    begun = "parts/behaviors" if num_workers > 1 else "sources.json"
    _wait_for(tmp_path / "store.partial" / begun, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    status, stderr = _finish(process)
    assert status == 130
    assert stderr.endswith("interrupted. Go on with --resume.\n")
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store.partial"]


def test_full_disk_says_how_to_go_on(
    repository: Path, alibaba: Path, tmp_path: Path
) -> None:
    flags = (
        *("--dataset=alibaba", f"--raw_dir={alibaba}", "--num_shards=3"),
        *(f"--data_dir={tmp_path / 'store'}", "--num_workers=1"),
    )
    # No file can grow beyond 100 KiB, and one of them has to.
    result = subprocess.run(
        [
            *("bash", "-c", 'ulimit -f 100; exec "$@"', "bash"),
            *(sys.executable, "-m", "data_pipelines.prepare", *flags),
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    (line,) = [x for x in result.stderr.splitlines() if "error: " in x]
    assert line.endswith("File too large. Go on with --resume.")
    assert f"error: {tmp_path / 'store.partial'}" in line
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store.partial"]
    result = _run(repository, *flags, "--resume")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    verify_store(tmp_path / "store")
