"""Runs that differ by their seed alone, and how such groups differ."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sparsectr.comparison.finished_run import METRICS, FinishedRun
from sparsectr.errors import InputError
from sparsectr.metrics import relative_improvement

DEFAULT_BASE = "din"
"""The paper's base of RelaImpr."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Some numbers that differ by chance.

    Args:
        mean: Their mean.
        deviation: Their standard deviation; `None` if there is only one.
        count: How many there are.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """Returns theirs; `None` if one is undefined."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return cls(
            mean=statistics.mean(known),
            deviation=statistics.stdev(known) if len(known) > 1 else None,
            count=len(known),
        )

    @property
    def standard_error(self) -> float | None:
        """That of the mean."""
        if self.deviation is None:
            return None
        return self.deviation / math.sqrt(self.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Runs of one model with the same flags.

    Args:
        label: The model, and the flags that others of its name have
            otherwise.
        runs: By their seeds, ascending.
    """

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [run.seed for run in self.runs]

    @property
    def commits(self) -> list[str]:
        """The commits of the code, each once."""
        return sorted({run.commit or "unknown" for run in self.runs})

    def spread(self, metric: str) -> Spread | None:
        """Returns mean and deviation of a metric."""
        return Spread.of([run.metrics[metric] for run in self.runs])

    def relative_improvement(self, base: "SeedGroup | None") -> float | None:
        """Returns RelaImpr of the mean AUC; `None` where it is undefined."""
        own = self.spread("auc")
        other = base.spread("auc") if base else None
        if own is None or other is None or other.mean <= 0.5:
            return None
        return relative_improvement(own.mean, other.mean)

    @property
    def train_seconds(self) -> float:
        """Mean seconds of training."""
        return statistics.mean(run.train_seconds for run in self.runs)

    @property
    def auc_standard_error(self) -> float | None:
        """Standard error of the AUC over users, mean of the runs."""
        spread = Spread.of([run.auc_standard_error for run in self.runs])
        return None if spread is None else spread.mean

    def to_dict(self, base: "SeedGroup | None" = None) -> dict[str, Any]:
        """Returns all of it as values for JSON.

        Args:
            base: What RelaImpr is relative to, if anything.
        """
        return {
            "label": self.label,
            "model": self.runs[0].model,
            "seeds": self.seeds,
            "metrics": _spreads({m: self.spread(m) for m in METRICS}),
            "auc_standard_error_over_users": self.auc_standard_error,
            "rela_impr": self.relative_improvement(base),
            "num_parameters": self.runs[0].num_parameters,
            "train_seconds": self.train_seconds,
            "commits": self.commits,
            "runs": [dataclasses.asdict(run) for run in self.runs],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How two groups differ, seed by seed.

    Args:
        first: A group.
        second: One of the same seeds, which is subtracted.
    """

    first: SeedGroup
    second: SeedGroup

    def spread(self, metric: str) -> Spread | None:
        """Returns mean and deviation of the differences of a metric."""
        differences: list[float | None] = []
        for one, other in zip(self.first.runs, self.second.runs, strict=True):
            a, b = one.metrics[metric], other.metrics[metric]
            differences.append(None if a is None or b is None else a - b)
        return Spread.of(differences)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as values for JSON."""
        return {
            "first": self.first.label,
            "second": self.second.label,
            "seeds": self.first.seeds,
            "differences": _spreads({m: self.spread(m) for m in METRICS}),
        }


def group_by_seed(runs: Sequence[FinishedRun]) -> list[SeedGroup]:
    """Returns the groups in the order in which their first runs stand.

    Raises:
        InputError: If two runs of a group have the same seed.
    """
    members: dict[tuple[tuple[str, str], ...], list[FinishedRun]] = {}
    for run in runs:
        members.setdefault(tuple(run.settings.items()), []).append(run)
    groups = []
    for group in members.values():
        group.sort(key=lambda run: run.seed)
        for one, other in itertools.pairwise(group):
            if one.seed == other.seed:
                raise InputError(
                    f"{one.location} and {other.location} are the same model "
                    f"with the same flags and seed {one.seed}: name one."
                )
        others = [
            other[0].settings
            for other in members.values()
            if other[0].model == group[0].model
        ]
        label = _label(group[0], others)
        groups.append(SeedGroup(label=label, runs=tuple(group)))
    return groups


def find_base(
    groups: Sequence[SeedGroup], model: str | None
) -> SeedGroup | None:
    """Returns the one group of a model, which RelaImpr is relative to.

    Args:
        groups: Those to compare.
        model: Its name; `None` for the paper's, if it is there.

    Raises:
        InputError: If there is none, or several.
    """
    name = model or DEFAULT_BASE
    found = [group for group in groups if group.runs[0].model == name]
    if len(found) == 1:
        return found[0]
    if model is None:
        return None
    labels = "; ".join(group.label for group in found or groups)
    raise InputError(
        f"--base={model} must be one row; {len(found)} are of that name. "
        f"Received: {labels}"
    )


def paired_differences(groups: Sequence[SeedGroup]) -> list[PairedDifference]:
    """Returns those of all groups with the same seeds, two or more."""
    return [
        PairedDifference(first=first, second=second)
        for first, second in itertools.combinations(groups, 2)
        if first.seeds == second.seeds and len(first.seeds) > 1
    ]


def _label(run: FinishedRun, others: Sequence[Mapping[str, str]]) -> str:
    """Returns a model's name with the flags in which its groups differ."""
    flags = [
        f"--{name}={value}"
        for name, value in run.settings.items()
        if any(other.get(name) != value for other in others)
    ]
    return " ".join([run.model, *flags])


def _spreads(spreads: Mapping[str, Spread | None]) -> dict[str, Any]:
    return {
        name: None
        if spread is None
        else {
            **dataclasses.asdict(spread),
            "standard_error": spread.standard_error,
        }
        for name, spread in spreads.items()
    }
