"""The benchmark on a tiny store, as a user runs it."""

import json
from pathlib import Path

import pytest

from benchmarks.first_result import OTHER, Version, train
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.commands import ForkedCommands
from tests.tiny_run import FLAGS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_this_version_beside_another(
    command: ForkedCommands, tiny_store: Store, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    more = [f for f in FLAGS if not f.startswith(("--dataset", "--nojit"))]
    done = command(
        "benchmarks.first_result",
        "--dataset=alibaba",
        f"--data_dir={tiny_store.path}",
        "--variants=defaults",
        "--variants=none compiled",
        f"--other={ROOT}",
        f"--output={output}",
        *(f"--train_flag={flag}" for flag in (*more, "--max_steps=3")),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert list(found["runs"]) == ["defaults", "none compiled", OTHER]
    (first,), (second,), (third,) = found["runs"].values()
    # So few rows are not worth compiling: all three did the same.
    assert first["metrics"] == second["metrics"] == third["metrics"]
    assert 0.0 < first["compile_seconds"] < first["seconds"]
    assert 0.2 < first["peak_memory_gib"] < 4.0


def test_says_why_a_training_failed(tmp_path: Path) -> None:
    version = Version(checkout=ROOT, data_dir=tmp_path / "none")
    with pytest.raises(InputError, match=r"(?s)ended with 2: .*none"):
        train(version, "alibaba")
