"""The benchmark of the reader with tiny shapes, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made.store import write_made_store
from data_pipelines.store import Store

TINY = (
    "--batch_sizes=3",
    "--max_history=11",
    "--num_rounds=2",
    "--num_batches=3",
    "--num_steps=2",
    "--num_shards=2",
    "--users_of_shard=2",
    "--max_rows=50",
)


def _run(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.input_pipeline", *TINY, *flags],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def test_measures_reader_and_step(repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    result = _run(repository, f"--output={output}")
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert json.loads(result.stdout) == found
    assert found["store"]["data_source"].startswith("synthetic")
    assert found["store"]["num_shards"] == 2
    assert found["workload"] == {
        "batch_sizes": [3],
        "max_history": 11,
        "num_rounds": 2,
        "num_batches": 3,
        "num_steps": 2,
    }
    assert list(found["batch_size"]) == ["3"]
    measured = found["batch_size"]["3"]
    assert measured["behaviors_of_request"] == 11
    for name in (
        "reader_seconds_of_batch",
        "step_seconds",
        "step_over_reader",
        "loop_seconds_of_step",
        "loop_over_step",
    ):
        spread = measured[name]
        assert 0.0 < spread["least"] <= spread["median"] <= spread["most"]
    # Compilation is left out.
    assert measured["step_seconds"]["most"] < 1.0
    assert measured["reader_requests_per_second"] == pytest.approx(
        3 / measured["reader_seconds_of_batch"]["median"]
    )
    memory = found["memory_gib"]
    # TensorFlow alone takes a few hundred MiB, and so few requests nothing.
    assert 0.1 < memory["imported"] <= memory["peak"] < 2.0
    assert memory["peak_above_imported"] < 0.3
    assert memory["own_above_imported"] < 0.3
    assert memory["num_training_requests"] == 2 * 2 * 8
    assert found["environment"]["tensorflow"]


@pytest.mark.slow
def test_measures_a_store_that_is_there(
    repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    write_made_store(
        path, num_shards=1, users_of_shard=3, num_behaviors=4, max_rows=9
    )
    result = _run(repository, f"--data_dir={path}")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["store"]["counts"]["users"] == 3
    # Histories of four to six behaviors, padded to eleven.
    assert 4 <= found["batch_size"]["3"]["behaviors_of_request"] <= 6
    assert str(path) not in result.stdout


def test_made_store_has_full_histories(tmp_path: Path) -> None:
    write_made_store(
        tmp_path / "store", num_shards=2, users_of_shard=3, num_behaviors=7
    )
    store = Store(tmp_path / "store")
    assert len(store.shards) == 2
    lengths = set()
    for shard in store.shards:
        for requests in shard.splits.values():
            start = shard.behavior_offset[requests.user]
            lengths |= set((requests.history_end - start).tolist())
            last = np.asarray(requests.history_end) - 1
            assert (shard.behavior_time[last] < requests.time).all()
    assert min(lengths) >= 7
    assert max(lengths) <= 10
    # Ids are as wide as those of the real files.
    columns = store.shards[0].behaviors
    assert {name: column.dtype.name for name, column in columns.items()} == {
        "btag": "uint8",
        "cate": "uint16",
        "brand": "int32",
    }


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=no/such/folder/a.json", "no/such/folder is not a folder"),
        ("--batch_sizes=3,x", "--batch_sizes"),
        ("--batch_sizes=0", "--batch_sizes must be at least 1"),
        ("--num_steps=4", "--num_steps must not exceed --num_batches"),
        ("--num_shards=0", "num_shards"),
        ("--data_dir=no/such/store", "no/such/store is not a store"),
    ],
)
def test_refuses_in_one_line(repository: Path, flag: str, message: str) -> None:
    result = _run(repository, flag)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
