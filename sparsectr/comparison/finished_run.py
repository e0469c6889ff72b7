"""What a finished run says of itself, and which runs can be compared."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsectr.errors import InputError
from sparsectr.file_systems.paths import Location
from sparsectr.training.run_directory import RunDirectory

METRICS = (
    "auc",
    "gauc",
    "gauc_frozen_history",
    "gauc_by_request",
    "normalized_entropy",
    "logloss",
    "calibration",
)
"""What is compared; the frozen one is there where `evaluate` measured it."""

_PROTOCOL = ("dataset", "split", "split_rule")
_NEEDED = (
    *_PROTOCOL,
    *("model", "seed", "metrics", "floors", "kind", "content"),
    *("num_parameters", "train_seconds"),
)

# Of no consequence to what is learned.
_OPERATION = ("checkpoint_every", "keep_checkpoints", "log_every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run and what it came to.

    Args:
        location: What its user calls it.
        model: Name of the model.
        seed: Its seed.
        settings: Every flag by its name, but those of the seed and of
            operation: runs that agree in them differ by chance alone.
        protocol: What runs in one table have in common, with `data_source`.
        metrics: Those of `METRICS`; `None` where undefined or not measured.
        auc_standard_error: Over users; `None` where undefined.
        floors: AUC of simple means of the training part.
        num_parameters: `dense` and `embedding`.
        train_seconds: Seconds of training.
        commit: Of the code; `None` if it is not known.
    """

    location: str
    model: str
    seed: int
    settings: Mapping[str, str]
    protocol: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    auc_standard_error: float | None
    floors: Mapping[str, float | None]
    num_parameters: Mapping[str, int]
    train_seconds: float
    commit: str | None

    @classmethod
    def read(cls, workdir: Location) -> "FinishedRun":
        """Reads the folder of a run.

        Raises:
            InputError: If there is no run, it is not done, or its result is
                of an earlier version.
        """
        run = RunDirectory.of(workdir)
        config, _ = run.read_config()
        result = run.read_result()
        again = (
            f"`python -m sparsectr.train --workdir={run.location} --resume` "
            "writes it"
        )
        if not result:
            raise InputError(f"{run.location} has no result.json yet: {again}.")
        source = result.get("data_source", {})
        missing = [
            name for name in _NEEDED if (result | source).get(name) is None
        ]
        if missing:
            raise InputError(
                f"{run.location}: result.json has no {', '.join(missing)}; an "
                f"earlier version wrote it. {again} anew."
            )
        metrics = dict(result["metrics"])
        frozen = result.get("metrics_frozen_history", {})
        metrics["gauc_frozen_history"] = frozen.get("gauc")
        return cls(
            location=run.location,
            model=result["model"],
            seed=result["seed"],
            settings=dict(_settings(config.to_dict())),
            protocol={
                **{name: result[name] for name in _PROTOCOL},
                "data_source": source["kind"],
                "content": source["content"],
                "num_candidates": metrics["num_candidates"],
                "num_requests_counted": metrics["num_requests_counted"],
            },
            metrics={name: metrics.get(name) for name in METRICS},
            auc_standard_error=metrics.get("auc_standard_error"),
            floors=result["floors"],
            num_parameters=result["num_parameters"],
            train_seconds=result["train_seconds"],
            commit=run.read_environment().get("commit"),
        )


def check_comparable(runs: Sequence[FinishedRun]) -> None:
    """Refuses runs that do not belong into one table.

    Raises:
        InputError: If data, split or what was scored differ; it names the
            runs and what differs.
    """
    first = runs[0]
    for run in runs[1:]:
        differences = [
            f"{name} ({_text(value)}, {_text(run.protocol[name])})"
            for name, value in first.protocol.items()
            if run.protocol[name] != value
        ]
        if differences:
            raise InputError(
                f"{first.location} and {run.location} cannot stand in one "
                f"table: they differ in {'; '.join(differences)}."
            )


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the flags that a configuration stands for."""
    for part, values in config.items():
        if not isinstance(values, Mapping):
            continue
        for name, value in values.items():
            if part != "train":
                yield f"{part}.{name}", _flag_value(value)
            elif name not in ("seed", *_OPERATION):
                yield name, _flag_value(value)


def _flag_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
