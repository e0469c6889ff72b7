"""What an inspection of attention reports, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

GROUPS = (
    "user",
    "registers",
    "oldest",
    "newest",
    "boundary_sinks",
    "other",
    "sink",
)
"""What the keys of a branch are told apart into; docs/attention.md says how."""

Heads = list[float] | None
"""One number for each head; `None` where there is no query to average over."""


class BranchReport(NamedTuple):
    """Means over the queries of one kind in one branch of one block.

    Attributes:
        block: Number of the block, from 0.
        queries: "behaviors" or "candidates".
        branch: Name of the branch, "all" where there is but one.
        num_queries: Real queries; behaviors count once a request.
        num_empty: Those of them that may read no key.
        num_with_choice: Those that may read two or more, a sink among them.
        mass: Share of the attention by group of keys.
        entropy: Of the attention, in nats.
        relative_entropy: By the logarithm of what there is to read.
        largest_logit: Of all queries and keys.
        gate: Weight of the branch; `None` without a gate of branches.
        output_gate: How far the output gate is open; `None` without.
    """

    block: int
    queries: str
    branch: str
    num_queries: int
    num_empty: int
    num_with_choice: int
    mass: dict[str, Heads]
    entropy: Heads
    relative_entropy: Heads
    largest_logit: Heads
    gate: Heads
    output_gate: Heads

    @property
    def empty_share(self) -> float | None:
        """Share of the queries that may read no key."""
        if not self.num_queries:
            return None
        return self.num_empty / self.num_queries

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON has it."""
        return {**self._asdict(), "empty_share": self.empty_share}


def report_of(
    block: int, queries: str, branch: str, sums: Mapping[str, Any]
) -> BranchReport:
    """Divides sums by the numbers of queries that they are of.

    Args:
        block: Number of the block.
        queries: "behaviors" or "candidates".
        branch: Name of the branch, `""` for a single one.
        sums: Of `sparsectr.inspection.attention_sums`.
    """
    num_queries = int(sums["queries"])
    reading = int(sums["queries_with_key"])
    choosing = int(sums["queries_with_choice"])

    def mean(name: str, count: int) -> Heads:
        if name not in sums or not count:
            return None
        return _numbers(sums[name] / count)

    return BranchReport(
        block=block,
        queries=queries,
        branch=branch or "all",
        num_queries=num_queries,
        num_empty=num_queries - reading,
        num_with_choice=choosing,
        mass={
            group: mean(f"mass/{group}", reading)
            for group in GROUPS
            if f"mass/{group}" in sums
        },
        entropy=mean("entropy", reading),
        relative_entropy=mean("relative_entropy", choosing),
        largest_logit=_numbers(sums["largest_logit"]) if reading else None,
        gate=mean("gate", num_queries),
        output_gate=mean("output_gate", num_queries),
    )


def _numbers(values: npt.NDArray[Any]) -> list[float]:
    return [float(value) for value in values]


def table(reports: Sequence[BranchReport]) -> str:
    """Returns Markdown: a line for each branch, means over the heads."""
    groups = [
        group for group in GROUPS if any(group in r.mass for r in reports)
    ]
    titles = ["block", "queries", "branch", "number", "empty"]
    titles += [group.replace("_", " ") for group in groups]
    titles += ["entropy", "of log n", "largest logit"]
    gates = [
        name
        for name in ("gate", "output_gate")
        if any(getattr(report, name) is not None for report in reports)
    ]
    titles += [name.replace("_", " ") for name in gates]
    rows = [titles, ["---"] * len(titles)]
    for report in reports:
        largest = report.largest_logit
        rows.append(
            [
                str(report.block),
                report.queries,
                report.branch,
                f"{report.num_queries:,}",
                _percent(report.empty_share),
                *(_percent(_mean(report.mass.get(name))) for name in groups),
                _number(_mean(report.entropy)),
                _number(_mean(report.relative_entropy)),
                _number(max(largest) if largest else None),
                *(_number(_mean(getattr(report, name))) for name in gates),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mean(heads: Heads | None) -> float | None:
    return float(np.mean(heads)) if heads else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
