"""One run of a sweep, in processes of its own."""

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.leaderboards.bootstrap import resampled_aucs
from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory

KEPT = (
    "metrics",
    "num_parameters",
    "train_seconds",
    "compile_seconds",
    "requests_per_second",
    "peak_memory_bytes",
)
"""What of `result.json` stands in the file of a sweep."""


def train(arguments: Sequence[str], workdir: Path) -> dict[str, Any]:
    """Trains, or goes on with a run that is there, and resamples its AUC.

    Args:
        arguments: Flags of `sparsectr.train` but for the folder.
        workdir: Folder of the run.

    Returns:
        Its `result.json`, with `resampled_aucs` and `environment`.

    Raises:
        InputError: If it fails; the reason is on standard error.
    """
    run = RunDirectory(workdir)
    resume = ["--resume"] if run.exists else []
    _command(
        "sparsectr.train",
        *arguments,
        "--noexport",
        f"--workdir={workdir}",
        *resume,
    )
    scores = workdir / "scores.parquet"
    _command(
        "sparsectr.evaluate",
        f"--workdir={workdir}",
        f"--predictions={scores}",
    )
    return {
        **run.read_result(),
        "environment": run.read_environment(),
        "resampled_aucs": _resampled(scores),
    }


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    RunDirectory(path.parent).write_json(path.name, values)


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        InputError: If it is none.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def _resampled(scores: Path) -> list[float | None]:
    """Returns AUCs of resampled users; `None` for one of a single class."""
    table = pq.read_table(scores, columns=["user", "label", "logit"])
    user, label, score = (column.to_numpy() for column in table.columns)
    aucs = resampled_aucs(user, label.astype(float), score)
    return [round(auc, 6) if math.isfinite(auc) else None for auc in aucs]


def _command(module: str, *arguments: str) -> None:
    # What it prints is no part of the table that is printed here.
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=False, stdout=2
    )
    if done.returncode < 0 or done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        text = shlex.join(["python", "-m", module, *arguments])
        raise InputError(f"{text} failed; see above.")
