"""The benchmark with tiny shapes, as a user runs it."""

import json
from pathlib import Path

from tests.commands import ForkedCommands


def test_measures_both_files(command: ForkedCommands, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    done = command(
        "benchmarks.prediction",
        "--num_scores=400",
        "--num_behaviors=7",
        "--num_candidates=5",
        "--num_rows=50",
        "--num_blocks=1",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert json.loads(done.stdout) == found
    assert {n: f["candidates"] for n, f in found["files"].items()} == {
        "quarter": 100,
        "whole": 400,
    }
    assert found["environment"]["cpu_cores"] >= 1
