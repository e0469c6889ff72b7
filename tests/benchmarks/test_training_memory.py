"""The benchmark with tiny shapes, as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.commands import ForkedCommands


@pytest.mark.parametrize(
    "attention", ["evo", pytest.param("full", marks=pytest.mark.slow)]
)
def test_measures_a_training_step(
    command: ForkedCommands, tmp_path: Path, attention: str
) -> None:
    output = tmp_path / "result.json"
    result = command(
        "benchmarks.training_memory",
        "--batch_size=3",
        "--num_behaviors=37",
        "--num_candidates=2",
        "--num_steps=2",
        "--max_rows=50",
        "--num_blocks=1",
        f"--attention={attention}",
        f"--output={output}",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert json.loads(result.stdout) == found
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert found["workload"] == {
        "attention": attention,
        "batch_size": 3,
        "num_behaviors": 37,
        "num_candidates": 2,
        "num_steps": 2,
        "max_rows": 50,
        "num_blocks": 1,
    }
    assert found["model"]["attention"] == attention
    assert found["model"]["num_blocks"] == 1
    assert found["data"].startswith("made")
    # TensorFlow alone takes a few hundred MiB.
    assert 0.2 < found["peak_resident_gib"] < 4.0
    seconds = found["step_seconds"]
    assert 0.0 < seconds["lower_quartile"] <= seconds["median"]
    assert seconds["median"] <= seconds["upper_quartile"]
    # The first step is the one that compiles.
    assert seconds["upper_quartile"] < found["first_step_seconds"]
    assert found["environment"]["tensorflow"]
    assert found["environment"]["processor"]
