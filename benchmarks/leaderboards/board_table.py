"""A table of models: what its rows come to, and the same in Markdown."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.leaderboards.board import aucs, missing_runs
from benchmarks.leaderboards.bootstrap import interval
from benchmarks.leaderboards.significance import PairedTest, paired_tests
from sparsectr.metrics import relative_improvement

BASE = "din"
"""The row that RelaImpr is relative to: the paper's base."""

_NOTHING = "-"

_LENGTHS = (128, 1024)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """What stands in one row.

    Args:
        name: Name of the row.
        seeds: The seeds that have run.
        auc: Mean AUC.
        deviation: Its standard deviation over seeds; `None` of one seed.
        auc_interval: 95 % interval of the mean AUC over users.
        relative_improvement: RelaImpr to the base, if that has run.
        metrics: Means of other metrics, by name; `None` where undefined.
        num_parameters: `dense` and `embedding`.
        train_seconds: Mean seconds of training.
        best_minus: The test of the best row against this one.
        best_minus_interval: 95 % interval over users of that difference.
        cost: What `benchmarks.model_cost` measured, by length.
        chosen: What the search has chosen; empty if it did not search.
    """

    name: str
    seeds: tuple[str, ...]
    auc: float
    deviation: float | None
    auc_interval: tuple[float, float]
    relative_improvement: float | None
    metrics: Mapping[str, float | None]
    num_parameters: Mapping[str, int]
    train_seconds: float
    best_minus: PairedTest | None
    best_minus_interval: tuple[float, float] | None
    cost: Mapping[str, Any]
    chosen: Mapping[str, Any]


def table_rows(
    rows: Mapping[str, Any], costs: Mapping[str, Any] | None = None
) -> list[TableRow]:
    """Returns the rows that have a run, best first.

    Args:
        rows: Those of `Board`.
        costs: The file of `benchmarks.model_cost`, if there is one.
    """
    run = {name: row for name, row in rows.items() if row["runs"]}
    ordered = sorted(run, key=lambda name: -_mean(aucs(run[name])))
    if not ordered:
        return []
    best = ordered[0]
    others = {name: aucs(run[name]) for name in ordered[1:]}
    tests = paired_tests(aucs(run[best]), others)
    base = _mean(aucs(run[BASE])) if BASE in run else None
    return [
        _table_row(name, run, best, tests.get(name), base, costs or {})
        for name in ordered
    ]


def _table_row(
    name: str,
    rows: Mapping[str, Any],
    best: str,
    test: PairedTest | None,
    base: float | None,
    costs: Mapping[str, Any],
) -> TableRow:
    runs = rows[name]["runs"]
    values = list(aucs(rows[name]).values())
    own = _resampled(rows[name])
    lead = None
    if name != best:
        lead = interval(_resampled(rows[best]) - own)
    improvement = None
    if base is not None and base > 0.5:
        improvement = relative_improvement(_mean(aucs(rows[name])), base)
    names = ("gauc", "gauc_by_request", "normalized_entropy", "calibration")
    metrics = {
        key: _mean_of([run["metrics"][key] for run in runs.values()])
        for key in names
    }
    metrics["gauc_frozen_history"] = _mean_of(
        [run.get("gauc_frozen_history") for run in runs.values()]
    )
    first = next(iter(runs.values()))
    return TableRow(
        name=name,
        seeds=tuple(sorted(runs, key=int)),
        auc=statistics.mean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        auc_interval=interval(own),
        relative_improvement=improvement,
        metrics=metrics,
        num_parameters=first["num_parameters"],
        train_seconds=statistics.mean(
            run["train_seconds"] + run["compile_seconds"]
            for run in runs.values()
        ),
        best_minus=test,
        best_minus_interval=lead,
        cost=costs.get("models", {}).get(rows[name]["model"], {}),
        chosen=rows[name].get("search", {}).get("best", {}).get("values", {}),
    )


def markdown(
    rows: Mapping[str, Any],
    protocol: Mapping[str, Any],
    seeds: Sequence[str],
    costs: Mapping[str, Any] | None = None,
) -> str:
    """Returns the table with what it is of, and what it lacks."""
    found = table_rows(rows, costs)
    if not found:
        return heading(protocol, rows) + "\n\nNo run is done yet."
    lines = [HEADER, *(cells(row) for row in found)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(HEADER))
    parts = [heading(protocol, rows), "\n".join(text), footnotes(found)]
    lacking = missing_runs(rows, seeds)
    if lacking:
        parts.append(
            "**Not finished**: "
            + "; ".join(
                f"{name} lacks seeds {', '.join(own)}"
                for name, own in lacking.items()
            )
            + "."
        )
    return "\n\n".join(parts)


HEADER = [
    "model",
    "seeds",
    "AUC",
    "95 % over users",
    "RelaImpr to DIN",
    "best minus it",
    "p",
    "GAUC",
    "GAUC, frozen",
    "GAUC by request",
    "NE",
    "dense weights",
    "train, s",
    *(
        f"{what}, L={length}"
        for length in _LENGTHS
        for what in ("train req/s", "pass ms", "score ms", "state KB")
    ),
]


def cells(row: TableRow) -> list[str]:
    """Returns a row as texts, one for each of `HEADER`."""
    auc = f"{row.auc:.4f}"
    if row.deviation is not None:
        auc += f" ± {row.deviation:.4f}"
    test, lead = row.best_minus, row.best_minus_interval
    minus = _NOTHING
    if test is not None:
        minus = f"{test.difference:+.4f} ± {test.standard_error:.4f}"
    if lead is not None:
        minus += f" ({lead[0]:+.4f} to {lead[1]:+.4f})"
    improvement = row.relative_improvement
    return [
        row.name,
        str(len(row.seeds)),
        auc,
        f"{row.auc_interval[0]:.4f} to {row.auc_interval[1]:.4f}",
        _NOTHING if improvement is None else f"{improvement:+.2%}",
        minus,
        _NOTHING if test is None else f"{test.corrected:.2g}",
        *(
            _number(row.metrics[name])
            for name in (
                "gauc",
                "gauc_frozen_history",
                "gauc_by_request",
                "normalized_entropy",
            )
        ),
        f"{row.num_parameters['dense']:,}",
        f"{row.train_seconds:.0f}",
        *(
            _cost(row.cost.get(str(length), {}), name)
            for length in _LENGTHS
            for name in _COSTS
        ),
    ]


_COSTS = {
    "requests_per_second": "{:,.0f}",
    "pass_milliseconds": "{:.2f}",
    "score_milliseconds": "{:.2f}",
    "state_kilobytes": "{:,.1f}",
}


def heading(protocol: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """Returns what all rows have in common, and the floors."""
    synthetic = "synthetic" in protocol["data_source"]
    warning = "**SYNTHETIC data.** " if synthetic else ""
    flags = " ".join(protocol["flags"]) or "none"
    text = (
        f"{warning}{protocol['dataset']} ({protocol['data_source']}), "
        f"{protocol['split_rule']['rule']}. Each searched row: "
        f"{protocol['num_trials']} trials on the newest "
        f"{protocol['newest_share']:.0%} of the requests before the "
        f"validation, of {', '.join(protocol['tune'])}; then the best on "
        "everything before the test, for as many steps a request. Flags of "
        f"all: {flags}."
    )
    for row in rows.values():
        for run in row["runs"].values():
            floors = ", ".join(
                f"{name} {_number(value)}"
                for name, value in run["floors"].items()
            )
            return f"{text} AUC of means: {floors}."
    return text


def footnotes(rows: Sequence[TableRow]) -> str:
    """Returns what the columns mean, and what was chosen."""
    tried = "; ".join(
        f"{row.name}: "
        + ", ".join(f"{k} {_short(v)}" for k, v in row.chosen.items())
        for row in rows
        if row.chosen
    )
    return (
        "AUC: mean ± standard deviation over seeds. Best minus it: mean ± "
        "standard error over the seeds that both have, and the 95 % interval "
        "over users (the same users drawn for both). p: paired t-test over "
        "seeds, corrected for as many rows as the best is compared with "
        "(Holm). GAUC is per user with histories as they were, and with "
        "histories frozen at the user's first test request; the two are not "
        f"to be compared. Chosen: {tried or 'nothing'}."
    )


def _resampled(row: Mapping[str, Any]) -> Any:
    """Returns the mean AUC over seeds of each resample of users."""
    runs = row["runs"].values()
    return np.mean([run["resampled_aucs"] for run in runs], axis=0)


def _mean(values: Mapping[str, float]) -> float:
    return statistics.mean(values.values())


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if len(known) == len(values) else None


def _cost(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return _NOTHING if value is None else _COSTS[name].format(value)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return _NOTHING
    return f"{value:.4f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
