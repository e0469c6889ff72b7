"""The benchmark with tiny shapes, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = (
    "--batch_size=3",
    "--num_behaviors=37",
    "--num_candidates=2",
    "--num_steps=2",
    "--max_rows=50",
)


def _run(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.training_memory", *flags],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "attention", ["evo", pytest.param("full", marks=pytest.mark.slow)]
)
def test_measures_a_training_step(
    repository: Path, tmp_path: Path, attention: str
) -> None:
    output = tmp_path / "result.json"
    result = _run(
        repository, *TINY, f"--attention={attention}", f"--output={output}"
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
    }
    assert found["model"]["attention"] == attention
    assert found["model"]["num_blocks"] == 2
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


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=no/such/folder/a.json", "no/such/folder is not a folder"),
        ("--num_steps=0", "num_steps"),
        ("--attention=some", "attention"),
        ("--length=3", "length"),
    ],
)
def test_refuses_in_one_line(repository: Path, flag: str, message: str) -> None:
    result = _run(repository, *TINY, flag)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
