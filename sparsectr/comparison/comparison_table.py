"""A comparison in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsectr.comparison.finished_run import METRICS, FinishedRun
from sparsectr.comparison.seed_groups import (
    PairedDifference,
    SeedGroup,
    Spread,
    paired_differences,
)

_NAMES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "gauc_frozen_history": "GAUC, frozen history",
    "gauc_by_request": "GAUC by request",
    "normalized_entropy": "NE",
    "logloss": "logloss",
    "calibration": "calibration",
}
_NOTHING = "-"


def table(groups: Sequence[SeedGroup], base: SeedGroup | None = None) -> str:
    """Returns what the groups have in common, and a row for each.

    Args:
        groups: The rows.
        base: What RelaImpr is relative to; `None` for no such column.
    """
    runs = [run for group in groups for run in group.runs]
    metrics = _known_metrics(runs)
    rows = [
        [
            "model",
            "seeds",
            *(_NAMES[name] for name in metrics),
            *([f"RelaImpr to {base.label}"] if base else []),
            "AUC's error over users",
            "dense weights",
            "embeddings",
            "seconds",
            "commit",
        ]
    ]
    for group in groups:
        dense, embedding = (
            f"{group.runs[0].num_parameters[kind]:,}"
            for kind in ("dense", "embedding")
        )
        rows.append(
            [
                group.label,
                ", ".join(map(str, group.seeds)),
                *(_value(group.spread(name)) for name in metrics),
                *([_share(group.relative_improvement(base))] if base else []),
                _number(group.auc_standard_error),
                dense,
                embedding,
                f"{group.train_seconds:.1f}",
                ", ".join(group.commits),
            ]
        )
    parts = [heading(runs[0]), markdown(rows)]
    if any(len(group.runs) > 1 for group in groups):
        parts.append("Mean ± standard deviation over the seeds.")
    pairs = paired_differences(groups)
    if pairs:
        parts.append(_pairs(pairs, metrics))
    elif len(groups) > 1:
        parts.append(
            "No differences seed by seed: no two rows have the same seeds, two "
            "or more of them."
        )
    return "\n\n".join(parts)


def heading(run: FinishedRun) -> str:
    """Returns what all runs of a table have in common, in two lines."""
    protocol = run.protocol
    floors = ", ".join(
        f"{name} {_number(value)}" for name, value in run.floors.items()
    )
    return (
        f"{protocol['dataset']} ({protocol['data_source']}), "
        f"{protocol['num_candidates']:,} candidates of {protocol['split']} "
        f"({protocol['num_requests_counted']:,} requests with clicks and "
        f"others), {_rule(protocol)}; content {protocol['content']}\n"
        f"AUC of means of the training part: {floors}"
    )


def _rule(protocol: Mapping[str, Any]) -> str:
    """Returns how the split that was scored was cut."""
    rule: dict[str, Any] = protocol["split_rule"]
    of_validation = rule.get("validation_rule")
    if protocol["split"] == "validation" and of_validation is not None:
        return str(of_validation)
    return str(rule["rule"])


def _pairs(pairs: Sequence[PairedDifference], metrics: Sequence[str]) -> str:
    rows = [
        ["first", "minus", "seeds", *(_NAMES[name] for name in metrics)],
    ]
    for pair in pairs:
        rows.append(
            [
                pair.first.label,
                pair.second.label,
                str(len(pair.first.seeds)),
                *(_difference(pair.spread(name)) for name in metrics),
            ]
        )
    return (
        "Differences, seed by seed: mean ± standard error of the mean.\n\n"
        + markdown(rows)
    )


def _known_metrics(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns the metrics that any of the runs has."""
    return [
        name
        for name in METRICS
        if any(run.metrics[name] is not None for run in runs)
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, the first row its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _value(spread: Spread | None) -> str:
    if spread is None:
        return _NOTHING
    return _with_error(spread.mean, spread.deviation, _number)


def _difference(spread: Spread | None) -> str:
    if spread is None:
        return _NOTHING
    return _with_error(spread.mean, spread.standard_error, "{:+.4f}".format)


def _with_error(
    mean: float, error: float | None, text: Callable[[float], str]
) -> str:
    return text(mean) if error is None else f"{text(mean)} ± {error:.4f}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:+.2%}"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.4f}"
