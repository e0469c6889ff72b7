"""`--validation` as its user calls it, and killed at random moments."""

import contextlib
import json
import pathlib
import random
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data_pipelines.stores.store import Store
from sparsectr.training.validation import evaluations_in
from tests.commands import ForkedCommands, assert_refused, start
from tests.tiny_run import logged, saved_state

FLAGS = (
    "--dataset=alibaba",
    "--model.name=mean_pooling",
    "--model.embedding_dim=4",
    "--data.max_history=32",
    "--batch_size=16",
    "--learning_rate=0.05",
    "--nojit_compile",
    "--log_every=2",
    "--checkpoint_every=4",
    "--validation",
    "--validate_every=3",
    "--max_steps=14",
)


@pytest.fixture(scope="module")
def validated(
    tiny_folder: pathlib.Path, tiny_store: Store, command: ForkedCommands
) -> tuple[pathlib.Path, str]:
    """A run of the command, and what it printed."""
    done = command("sparsectr.train", *FLAGS, "--workdir=validated")
    assert done.returncode == 0, done.stderr
    return tiny_folder / "validated", done.stdout


def _result(path: pathlib.Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((path / "result.json").read_text())
    return result


def test_exports_nothing(validated: tuple[pathlib.Path, str]) -> None:
    path, printed = validated
    assert not (path / "saved_model").exists()
    assert _result(path)["saved_model"] is None
    assert "SavedModel" not in printed


def test_the_final_run_is_a_command(
    validated: tuple[pathlib.Path, str],
    tiny_folder: pathlib.Path,
    tiny_store: Store,
    command: ForkedCommands,
) -> None:
    path, printed = validated
    (line,) = [
        line
        for line in printed.splitlines()
        if line.startswith("  python -m sparsectr.train ")
    ]
    flags = shlex.split(line)[3:]
    result = _result(path)
    assert flags == result["final_run"]["flags"]
    counts = tiny_store.manifest["counts"]
    ratio = counts["train"]["requests"] / counts["train_older"]["requests"]
    max_steps = round(result["best_step"] * ratio)
    done = command("sparsectr.train", *flags, "--noexport", "--workdir=final")
    assert done.returncode == 0, done.stderr
    final = _result(tiny_folder / "final")
    assert final["split"] == "test"
    assert logged(tiny_folder / "final")[-1]["step"] == max_steps
    number = final["metrics"]["num_candidates"]
    assert number == counts["test"]["candidates"]


@pytest.mark.parametrize("split", [None, "test", "train_older"])
def test_evaluate_scores_the_best(
    split: str | None,
    validated: tuple[pathlib.Path, str],
    tiny_store: Store,
    command: ForkedCommands,
) -> None:
    path, _ = validated
    flags = [] if split is None else [f"--split={split}"]
    done = command("sparsectr.evaluate", f"--workdir={path}", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    result = _result(path)
    assert found["checkpoint"] == "best"
    assert found["step"] == result["best_step"]
    counts = tiny_store.manifest["counts"][split or "validation"]
    assert found["num_candidates"] == counts["candidates"]
    if split is None:
        assert found["split"] == "validation"
        for name, value in result["metrics"].items():
            assert found[name] == pytest.approx(value, rel=1e-6)


@pytest.mark.slow  # an export takes a minute
def test_export_is_of_the_best(
    validated: tuple[pathlib.Path, str],
    command: ForkedCommands,
    tmp_path: pathlib.Path,
) -> None:
    path, _ = validated
    done = command(
        "export.saved_model", f"--workdir={path}", f"--output={tmp_path / 'm'}"
    )
    assert done.returncode == 0, done.stderr
    step = _result(path)["best_step"]
    assert f"this is its best checkpoint, of step {step}" in done.stdout


@pytest.mark.parametrize("flag", ["--patience=2", "--validate_every=7"])
def test_flags_that_need_validation(
    flag: str, command: ForkedCommands, tiny_store: Store
) -> None:
    done = command("sparsectr.train", "--dataset=alibaba", flag)
    assert_refused(done, "--patience and --validate_every need --validation")


def test_a_store_that_cannot_be_divided(
    command: ForkedCommands, tiny_store: Store, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(tiny_store.path, tmp_path / "store")
    file = tmp_path / "store" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["counts"]["validation"]["positives"] = 0
    file.write_text(json.dumps(manifest))
    flags = [*FLAGS, f"--data_dir={tmp_path / 'store'}", "--workdir"]
    done = command("sparsectr.train", *flags, tmp_path / "one_class")
    assert_refused(done, "with 0 clicks among", "--validation_time")
    del manifest["split"]["validation_time"]
    file.write_text(json.dumps(manifest))
    done = command("sparsectr.train", *flags, tmp_path / "old")
    assert_refused(done, "has no validation time. Prepare it again.")


def _without_times(path: pathlib.Path) -> list[dict[str, Any]]:
    lines = logged(path)
    for line in lines:
        del line["time"]
        del line["seconds"]
        line.pop("compile_seconds", None)
    return lines


def _reached(path: pathlib.Path) -> int:
    """Returns the last step in the log of a run that may be writing it."""
    steps = [0]
    if (path / "metrics.jsonl").exists():
        for line in (path / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                steps.append(json.loads(line)["step"])
    return steps[-1]


def _go_on(
    path: pathlib.Path,
    flags: Sequence[str],
    folder: pathlib.Path,
    kill_at: int,
    delay: float,
) -> bool:
    """Starts or resumes a run, and kills it when it has reached a step.

    Returns:
        Whether it was killed, and had not ended before.
    """
    if (path / "config.json").exists():
        flags = ["--resume"]
    with start(
        "sparsectr.train", *flags, f"--workdir={path}", cwd=folder
    ) as process:
        while process.poll() is None and _reached(path) < kill_at:
            time.sleep(0.002)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        (),
        (
            "--ema_decay=0.8",
            "--learning_rate_schedule=cosine",
            "--warmup_steps=3",
        ),
    ],
    ids=["plain", "average_and_schedule"],
)
def test_killed_at_ten_random_moments(
    more: tuple[str, ...],
    tiny_folder: pathlib.Path,
    tiny_store: Store,
    command: ForkedCommands,
    tmp_path: pathlib.Path,
) -> None:
    flags = (*FLAGS, *more)
    expected, path = tmp_path / "unbroken", tmp_path / "run"
    done = command("sparsectr.train", *flags, f"--workdir={expected}")
    assert done.returncode == 0, done.stderr
    generator = random.Random(1)
    kills = [
        _go_on(path, flags, tiny_folder, step, generator.uniform(0.0, 0.1))
        for step in sorted(generator.sample(range(1, 15), 10))
    ]
    assert sum(kills) >= 8  # One may come after the end.
    assert not _go_on(path, flags, tiny_folder, 99, 1.0)
    assert _without_times(path) == _without_times(expected)
    assert len(evaluations_in(logged(path))) == 5
    found, whole = _result(path), _result(expected)
    for name in ("metrics", "split", "best_step", "num_steps", "final_run"):
        assert found[name] == whole[name]
    for folder in ("checkpoints", "checkpoints/best"):
        state = saved_state(path, folder)
        for name, value in saved_state(expected, folder).items():
            # It counts writes, which nothing reads.
            if not name.startswith("save_counter"):
                np.testing.assert_array_equal(state[name], value, name)
