"""What `benchmarks.serving_latency` found, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.request_times import PERCENTILES
from benchmarks.serving_paths import (
    COMPILED,
    ENCODE,
    FROM_STATE,
    GRPC,
    POINTWISE,
    WHOLE,
)

_NAMES = {
    WHOLE: "whole pass",
    COMPILED: "whole pass, XLA",
    ENCODE: "encode",
    FROM_STATE: "score from state",
    POINTWISE: "pointwise",
}
_ATTENTIONS = {"evo": "", "full": ", full attention"}


def table(result: Mapping[str, Any]) -> str:
    """Returns percentiles and comparisons as text."""
    workload = result["workload"]
    candidates = workload["candidates"]
    percentiles = " ".join(f"p{percent}" for percent in PERCENTILES)
    rows = [
        (f"milliseconds, {percentiles}", "L", *(f"C={c}" for c in candidates))
    ]
    found: dict[tuple[str, int], dict[int, str]] = {}
    for row in result["milliseconds"]:
        name = _NAMES[row["path"]] + _ATTENTIONS[row["attention"]]
        if row["transport"] == GRPC:
            name += ", gRPC"
        cells = found.setdefault((name, row["num_behaviors"]), {})
        cells[row["num_candidates"]] = _percentiles(row)
    for (name, length), cells in sorted(found.items()):
        if 0 in cells:  # encoding, which reads no candidate
            row = [cells[0], *[""] * (len(candidates) - 1)]
        else:
            row = [cells.get(c, "-") for c in candidates]
        rows.append((name, str(length), *row))
    return "\n".join([*aligned(rows), "", *_comparisons(result)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines, the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _percentiles(row: Mapping[str, Any]) -> str:
    text = " ".join(f"{row[f'p{percent}']:.4g}" for percent in PERCENTILES)
    if row["path"] == POINTWISE:
        return f"{text} ({row['num_requests']} requests)"
    return text


def _comparisons(result: Mapping[str, Any]) -> list[str]:
    targets = result["targets"]
    lines = ["Times as fast, median of the rounds and its 95 % interval:"]
    lines += _ratios(
        "score from a state than the whole pass",
        result["whole_over_score"],
        targets["score_speedup"],
    )
    lines += _ratios(
        "score from a state than pointwise", result["pointwise_over_score"]
    )
    lines += _ratios(
        "SparseCTR than full attention at "
        f"L={result['workload']['full_length']}, the pass to the scores",
        result["full_over_evo"],
        targets["full_over_evo"],
    )
    lines += _ratios(
        "score at the shortest history than at the longest (wanted: 1)",
        result["score_of_longest_over_shortest"],
    )
    lines += [
        f"A user state has {result['state_bytes']:,} bytes (wanted: at most "
        f"{targets['state_bytes']:,}).",
        "The paths differ by at most "
        f"{result['largest_difference']:.2g} in probability (wanted: "
        f"{targets['largest_difference']:.0e}).",
    ]
    share = result["load"]["others_share"]
    lines.append(f"Others than these took {share:.0%} of the processors.")
    return lines


def _ratios(
    what: str,
    ratios: Mapping[str, Mapping[str, Any]],
    target: Mapping[str, Any] | None = None,
) -> list[str]:
    if not ratios:
        return []
    lines = [f"  {what}:"]
    for name, found in ratios.items():
        parts = name.split()
        lines.append(f"    {_where(parts):<28}{_ratio(found)}")
        if target and _is_target(parts, target):
            lines[-1] += f"  (wanted: {target['times']:.0f})"
    return lines


def _where(parts: Sequence[str]) -> str:
    numbers = [part for part in parts if part.isdigit()]
    words = [part for part in parts if not part.isdigit()]
    letters = ("L", "C") if len(numbers) == 2 else ("C",)
    named = [f"{a}={n}" for a, n in zip(letters, numbers, strict=True)]
    return ", ".join([*words, *named])


def _is_target(parts: Sequence[str], target: Mapping[str, Any]) -> bool:
    length, candidates = (int(part) for part in parts[-2:])
    return length == target["behaviors"] and (
        candidates == target.get("candidates", candidates)
    )


def _ratio(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    median = "?" if found["median"] is None else f"{found['median']:.3g}"
    return f"{median} ({low:.3g}-{high:.3g})"
