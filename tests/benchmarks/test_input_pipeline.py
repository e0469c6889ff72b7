"""The benchmark of the reader with tiny shapes, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made_data.store import write_made_store
from data_pipelines.stores.store import Store
from tests.commands import ForkedCommands

TINY = (
    # So many that all batches have a request of 20 candidates: one shape,
    # which is compiled once.
    "--batch_sizes=64",
    "--max_history=11",
    "--num_rounds=1",
    "--num_batches=2",
    "--num_steps=2",
    "--num_blocks=1",
    "--num_shards=2",
    "--users_of_shard=16",
    "--max_rows=50",
)


def test_measures_reader_and_step(
    command: ForkedCommands, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    result = command("benchmarks.input_pipeline", *TINY, f"--output={output}")
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert json.loads(result.stdout) == found
    assert found["store"]["data_source"].startswith("synthetic")
    assert found["store"]["num_shards"] == 2
    assert found["workload"] == {
        "batch_sizes": [64],
        "max_history": 11,
        "num_rounds": 1,
        "num_batches": 2,
        "num_steps": 2,
        "num_blocks": 1,
    }
    assert list(found["batch_size"]) == ["64"]
    measured = found["batch_size"]["64"]
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
        64 / measured["reader_seconds_of_batch"]["median"]
    )
    memory = found["memory_gib"]
    # TensorFlow alone takes a few hundred MiB, and so few requests nothing.
    assert 0.1 < memory["imported"] <= memory["peak"] < 2.0
    assert memory["peak_above_imported"] < 0.3
    assert memory["own_above_imported"] < 0.3
    assert memory["num_training_requests"] == 2 * 16 * 8
    assert found["environment"]["tensorflow"]


@pytest.mark.slow
def test_measures_a_store_that_is_there(
    command: ForkedCommands, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    write_made_store(
        path, num_shards=1, users_of_shard=3, num_behaviors=4, max_rows=9
    )
    result = command("benchmarks.input_pipeline", *TINY, f"--data_dir={path}")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["store"]["counts"]["users"] == 3
    # Histories of four to six behaviors, padded to eleven.
    assert 4 <= found["batch_size"]["64"]["behaviors_of_request"] <= 6
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
