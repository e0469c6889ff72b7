"""The benchmark of large tables: what it reads, and as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.table_size import spread_out
from sparsectr.schema import NUM_RESERVED_IDS
from tests.commands import ForkedCommands


def test_reads_as_many_rows_of_a_larger_table() -> None:
    schema = made_schema(50)
    made = made_requests(schema, 3, 29, 5)
    large = spread_out(made, schema, 10_000, seed=1)
    changed = {
        name for name in made if not np.array_equal(made[name], large[name])
    }
    assert changed == {"behavior_brand", "candidate_brand"}
    small_ids, ids = (
        np.concatenate([batch[name].ravel() for name in sorted(changed)])
        for batch in (made, large)
    )
    assert ids.dtype == np.int32
    assert ids.min() >= NUM_RESERVED_IDS
    # Over all of the table, and inside of it.
    assert 9_000 < ids.max() < 10_000
    pairs = set(zip(small_ids.tolist(), ids.tolist(), strict=True))
    assert len(pairs) == len(set(ids)) == len(set(small_ids))


@pytest.mark.slow
def test_measures(command: ForkedCommands, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    result = command(
        "benchmarks.table_size",
        "--num_rows=50,2000",
        "--batch_size=2",
        "--num_behaviors=17",
        "--num_candidates=3",
        "--num_rounds=2",
        "--seconds=0.01",
        f"--output={output}",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert list(found["seconds"]) == ["50", "2000"]
    assert found["times_the_smallest"]["50"]["median"] == 1.0
    assert found["times_the_smallest"]["2000"]["interval"][0] > 0.0
    # Compilation is left out.
    assert all(spread["median"] < 1.0 for spread in found["seconds"].values())
    assert "2,000" in result.stdout
    assert found["environment"]["tensorflow"]
