"""The state of a table of models: one JSON file, and what it may hold."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all rows of a table have in common.

    Args:
        dataset: Name of the data set.
        data_source: "raw files" or "synthetic sample".
        content: Digest of what the store holds.
        split_rule: How it is cut by time.
        flags: Flags that every run has.
        num_trials: Trials of a search.
        newest_share: Share of the training requests that they train on.
        tune: What they may change.
    """

    dataset: str
    data_source: str
    content: str
    split_rule: Mapping[str, Any]
    flags: tuple[str, ...]
    num_trials: int
    newest_share: float
    tune: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON gives it back."""
        values: dict[str, Any] = json.loads(
            json.dumps(dataclasses.asdict(self))
        )
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One model with its flags.

    Args:
        name: Name of the row.
        model: Name of the model.
        flags: Flags of the model beside the protocol's.
        is_searched: Whether learning rates and the like are searched; else
            they are the recipe's.
    """

    name: str
    model: str
    flags: tuple[str, ...] = ()
    is_searched: bool = True


class Board:
    """Searches and runs of all rows, kept in a file.

    Args:
        path: The file, written anew after each change.
        protocol: What all rows have in common.

    Attributes:
        rows: By the name of a row its `model`, `flags` and `is_searched`;
            `search`, what the search found; and `runs` by seed.

    Raises:
        InputError: If the file is of another protocol, or damaged.
    """

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self._path = path
        self.protocol = protocol.to_dict()
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.rows = self._read()["rows"]

    def _read(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            before: dict[str, Any] = values["protocol"]
        except (ValueError, KeyError) as error:
            raise InputError(f"{self._path} is no table: {error}") from error
        differences = [
            f"{name} ({before.get(name)}, now {value})"
            for name, value in self.protocol.items()
            if before.get(name) != value
        ]
        if differences:
            raise InputError(
                f"{self._path} is of another protocol, and a table holds one. "
                f"It differs in {'; '.join(differences)}. Name another "
                "--output."
            )
        return values

    def row(self, row: Row) -> dict[str, Any]:
        """Returns what is known of a row, which begins with nothing.

        Raises:
            InputError: If there is one of that name with other flags.
        """
        asked = {
            "model": row.model,
            "flags": list(row.flags),
            "is_searched": row.is_searched,
        }
        found = self.rows.setdefault(row.name, {**asked, "runs": {}})
        for name, value in asked.items():
            if found[name] != value:
                raise InputError(
                    f"{self._path}: the row {row.name} has {name} "
                    f"{found[name]}, not {value}. Name another --output."
                )
        return found

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        RunDirectory(self._path.parent).write_json(
            self._path.name, {"protocol": self.protocol, "rows": self.rows}
        )


def aucs(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the AUC of each seed of a row."""
    runs: Mapping[str, Any] = row["runs"]
    return {seed: run["metrics"]["auc"] for seed, run in runs.items()}


def missing_runs(
    rows: Mapping[str, Any], seeds: Sequence[str]
) -> dict[str, list[str]]:
    """Returns the seeds that rows lack, by the names of the rows."""
    missing = {
        name: [seed for seed in seeds if seed not in row["runs"]]
        for name, row in rows.items()
    }
    return {name: lacking for name, lacking in missing.items() if lacking}
