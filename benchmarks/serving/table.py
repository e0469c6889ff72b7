"""What `benchmarks.serving_latency` found, as text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.measuring.request_times import PERCENTILES
from benchmarks.measuring.text import aligned, with_interval
from benchmarks.serving.paths import (
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
        _at_least(targets["score_speedup"]),
    )
    lines += _ratios(
        "score from a state than pointwise", result["pointwise_over_score"]
    )
    lines += _ratios(
        "SparseCTR than full attention at "
        f"L={result['workload']['full_length']}, the pass to the scores",
        result["full_over_evo"],
        _at_least(targets["full_over_evo"]),
    )
    lines += _ratios(
        "score at the shortest history than at the longest",
        result["score_of_longest_over_shortest"],
        _near_1(targets["score_of_longest_over_shortest"]),
    )
    size, most = result["state_bytes"], targets["state_bytes"]
    lines.append(
        f"A user state has {size:,} bytes"
        + _wanted(f"at most {most:,}", size <= most)
    )
    lines += _agreement(result["agreement"], targets)
    memory = {name: n / 2**20 for name, n in result["memory"].items()}
    lines.append(
        "Resident memory in process: "
        f"{memory['one_version_bytes']:,.0f} MiB with one version, "
        f"{memory['two_versions_bytes']:,.0f} with two; the weights of a "
        f"version have {memory['weight_bytes']:,.0f} MiB on disk."
    )
    share = result["load"]["others_share"]
    lines.append(f"Others than these took {share:.0%} of the processors.")
    return lines


def _agreement(
    found: Mapping[str, Any], targets: Mapping[str, Any]
) -> list[str]:
    lines = [
        f"Probabilities of {found['num_requests']} requests, "
        f"{found['num_candidates']:,} candidates, from {found['lowest']:.4f} "
        f"to {found['highest']:.4f}; AUC against random labels:"
    ]
    rows = [("", "off Keras", "AUC")]
    for name in ("keras", *found["to_keras"]):
        rows.append(
            (
                f"  {name}",
                f"{found['to_keras'].get(name, 0.0):.2g}",
                f"{found['auc'][name]:.6f}" if name in found["auc"] else "-",
            )
        )
    largest, limit = found["largest"], targets["largest_difference"]
    aucs = found["auc"].values()
    digits = targets["auc_digits"]
    return [
        *lines,
        *aligned(rows),
        f"Any two of these differ by at most {largest:.2g}"
        + _wanted(f"at most {limit:.0e}", largest <= limit),
        f"Their AUC is from {min(aucs):.{digits}f} to {max(aucs):.{digits}f}"
        + _wanted(
            f"equal to {digits} digits",
            max(aucs) - min(aucs) <= 0.5 * 10**-digits,
        ),
    ]


def _wanted(what: str, is_reached: bool) -> str:
    return f" (wanted: {what}): {'reached' if is_reached else 'MISSED'}"


Judge = Callable[[Sequence[str], float], str]
"""From the parts of a name and a ratio to what is said of it."""


def _at_least(target: Mapping[str, Any]) -> Judge:
    def judge(parts: Sequence[str], ratio: float) -> str:
        length, candidates = (int(part) for part in parts[-2:])
        if length != target["behaviors"] or (
            candidates != target.get("candidates", candidates)
        ):
            return ""
        return _wanted(f"{target['times']:.0f}", ratio >= target["times"])

    return judge


def _near_1(share: float) -> Judge:
    return lambda parts, ratio: _wanted(
        f"1, give or take {share:.0%}", abs(ratio - 1.0) <= share
    )


def _ratios(
    what: str,
    ratios: Mapping[str, Mapping[str, Any]],
    judge: Judge = lambda parts, ratio: "",
) -> list[str]:
    if not ratios:
        return []
    lines = [f"  {what}:"]
    for name, found in ratios.items():
        parts = name.split()
        # No median: neither of the two is faster.
        ratio = 1.0 if found["median"] is None else found["median"]
        lines.append(
            f"    {_where(parts):<28}{with_interval(found)}"
            f"{judge(parts, ratio)}"
        )
    return lines


def _where(parts: Sequence[str]) -> str:
    numbers = [part for part in parts if part.isdigit()]
    words = [part for part in parts if not part.isdigit()]
    letters = ("L", "C") if len(numbers) == 2 else ("C",)
    named = [f"{a}={n}" for a, n in zip(letters, numbers, strict=True)]
    return ", ".join([*words, *named])
