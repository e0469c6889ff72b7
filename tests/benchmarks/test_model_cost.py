"""What models cost: every model has its figures, and bad flags are named."""

import json
from pathlib import Path

import pytest

from tests.commands import ForkedCommands

FLAGS = (
    "--lengths=5,11",
    "--batch_size=3",
    "--num_candidates=2",
    "--num_scored=4",
    "--num_rows=50",
    "--num_rounds=2",
    "--turn_seconds=0.001",
)


def test_figures_of_two_models(command: ForkedCommands, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    done = command(
        "benchmarks.model_cost",
        *FLAGS,
        "--models=mean_pooling,din",
        "--values=din normalize=softmax",
        f"--output={file}",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    recipes = result["workload"]["recipes"]
    assert recipes["din"]["normalize"] == "softmax"
    for name, found in result["models"].items():
        assert not found["bound_to_request_time"]
        for length in ("5", "11"):
            seconds = found[length]["seconds"]
            assert found[length]["requests_per_second"] == pytest.approx(
                3 / seconds["training"]["median"]
            )
            for kind in ("pass", "score"):
                milliseconds = found[length][f"{kind}_milliseconds"]
                assert milliseconds == 1e3 * seconds[kind]["median"] > 0.0
        sizes = [found[length]["state_kilobytes"] for length in ("5", "11")]
        assert (sizes[0] < sizes[1]) == (name == "din")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:5]].count(["din", "11"]) == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--models=dim", "--models must be among"),
        ("--values=din normalize", "--values must be a model, a blank"),
        ("--values=din normalise=none", "--values: "),
        ("--lengths=9,3", "--lengths must be ascending"),
    ],
)
def test_bad_flags(flag: str, message: str, command: ForkedCommands) -> None:
    done = command("benchmarks.model_cost", "--models=din", *FLAGS, flag)
    assert done.returncode == 2
    assert message in done.stderr
