"""The search and the final runs of one row, as commands of this package."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.leaderboards.board import Protocol, Row
from benchmarks.leaderboards.bootstrap import resampled_aucs
from sparsectr.errors import InputError
from sparsectr.searching.study import RESULT
from sparsectr.training.run_directory import RunDirectory

_KEPT = (
    "num_parameters",
    "step",
    "train_seconds",
    "compile_seconds",
    "requests_per_second",
    "peak_memory_bytes",
)


class RowRuns:
    """Runs what a row needs, in folders that can be gone on with.

    Args:
        folder: Where the runs are.
        data_dir: The store.
        protocol: What all rows have in common.
        frozen_history: Whether GAUC is measured with frozen histories too.
    """

    def __init__(
        self,
        folder: Path,
        data_dir: str,
        protocol: Protocol,
        *,
        frozen_history: bool,
    ) -> None:
        self._folder = folder
        self._data_dir = data_dir
        self._protocol = protocol
        self._frozen_history = frozen_history

    def search(self, row: Row) -> dict[str, Any]:
        """Searches, or goes on with it; returns what was found.

        Raises:
            InputError: If the search fails.
        """
        protocol = self._protocol
        folder = self._folder / row.name / "search"
        _run(
            "sparsectr.search",
            *self._flags(row),
            f"--newest_share={protocol.newest_share}",
            f"--trials={protocol.num_trials}",
            f"--folder={folder}",
            f"--data_dir={self._data_dir}",
            *(f"--tune={text}" for text in protocol.tune),
        )
        found = json.loads((folder / RESULT).read_text("utf-8"))
        flags = found["final_run"]["flags"]
        best = {k: v for k, v in found["best"].items() if k != "workdir"}
        return {
            "trials": found["trials"],
            "best": best,
            # Not where the store is on this machine.
            "flags": [f for f in flags if not f.startswith("--data_dir=")],
        }

    def final(self, row: Row, seed: str, flags: Sequence[str]) -> Any:
        """Trains on everything before the test and scores it once.

        Args:
            row: The row.
            seed: Seed of the run.
            flags: Those that the search ended with; none for the recipe's.

        Returns:
            Metrics, cost, and AUCs of resampled users.

        Raises:
            InputError: If it fails.
        """
        workdir = self._folder / row.name / f"seed-{seed}"
        run = RunDirectory(workdir)
        if run.exists:
            _run("sparsectr.train", f"--workdir={workdir}", "--resume")
        else:
            _run(
                "sparsectr.train",
                *(flags or self._flags(row)),
                f"--seed={seed}",
                "--noexport",
                f"--workdir={workdir}",
                f"--data_dir={self._data_dir}",
            )
        scores = workdir / "scores.parquet"
        _run(
            "sparsectr.evaluate",
            f"--workdir={workdir}",
            f"--predictions={scores}",
        )
        result = run.read_result()
        if result["data_source"]["content"] != self._protocol.content:
            raise InputError(
                f"{workdir} was trained on another store than the table is of."
            )
        found = {
            "metrics": result["metrics"],
            **{name: result[name] for name in _KEPT},
            "floors": result["floors"],
            "commit": run.read_environment()["commit"],
            "processor": run.read_environment()["processor"],
            "resampled_aucs": _resampled(scores),
        }
        if self._frozen_history:
            _run(
                "sparsectr.evaluate", f"--workdir={workdir}", "--frozen_history"
            )
            frozen = run.read_result()["metrics_frozen_history"]
            found["gauc_frozen_history"] = frozen["gauc"]
        return found

    def _flags(self, row: Row) -> list[str]:
        return [
            f"--dataset={self._protocol.dataset}",
            f"--model.name={row.model}",
            *self._protocol.flags,
            *row.flags,
        ]


def _resampled(scores: Path) -> list[float]:
    table = pq.read_table(scores, columns=["user", "label", "logit"])
    user, label, score = (column.to_numpy() for column in table.columns)
    aucs = resampled_aucs(user, label.astype(float), score)
    return [round(auc, 6) for auc in aucs]


def _run(module: str, *arguments: str) -> None:
    """Runs a command of this package.

    Raises:
        InputError: If it fails.
    """
    # What it prints is no part of the table that is printed here.
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=False, stdout=2
    )
    if done.returncode < 0 or done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        text = shlex.join(["python", "-m", module, *arguments])
        raise InputError(f"{text} failed; see above.")
