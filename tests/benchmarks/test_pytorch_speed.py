"""The comparison with PyTorch, where there is PyTorch."""

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.pytorch.worker import Worker
from tests.commands import ForkedCommands

FLAGS = (
    "--lengths=3,60",
    "--batch_size=2",
    "--num_candidates=2",
    "--num_rows=50",
    "--num_rounds=2",
    "--turn_seconds=0.001",
)
HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(HAS_TORCH, reason="PyTorch is installed")
def test_without_pytorch(command: ForkedCommands) -> None:
    done = command("benchmarks.pytorch_speed", *FLAGS)
    assert done.returncode == 2
    assert "There is no PyTorch to compare with: pip install" in done.stderr


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", ["din", "twin", "hstu"])
def test_their_models_learn(name: str) -> None:
    schema = made_schema(50)
    batch = made_requests(schema, 8, 60, 3)
    batch["behavior_time"][:, :7] = 0
    worker = Worker(name, schema, batch, 1e-2)
    losses = [worker() for _ in range(30)]
    worker.close()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_figures(command: ForkedCommands, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    done = command("benchmarks.pytorch_speed", *FLAGS, f"--output={file}")
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert len(result["seconds"]) == 14
    assert len(result["pytorch_over_ours"]) == 6
    assert len(done.stdout.splitlines()) >= 9
