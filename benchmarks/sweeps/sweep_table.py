"""A sweep as a table in Markdown."""

from collections.abc import Mapping
from typing import Any

_NOTHING = "-"

COST_TITLES = {
    "flops": "MFLOP a request",
    "train_seconds": "training s",
    "dense_parameters": "parameters",
    "state_bytes": "state, KB",
}
"""What each of `configs.sweep.COSTS` is called."""


def markdown(report: Mapping[str, Any], cost: str) -> str:
    """Returns what the runs are of, the table, and what it lacks.

    Args:
        report: What the file of the sweep holds, with its summary.
        cost: One of `configs.sweep.COSTS`, beside the operations.
    """
    costs = ["flops", *([cost] if cost != "flops" else [])]
    titles = [
        "variant",
        "seeds",
        "AUC",
        "±",
        "minus base",
        "95 %",
        *(COST_TITLES[name] for name in costs),
    ]
    lines = [heading(report), "", _line(titles), "|" + "---|" * len(titles)]
    for place, (name, found) in enumerate(report["summary"].items()):
        gain = _NOTHING if place == 0 else _signed(found["gain_mean"])
        lines.append(
            _line(
                [
                    name,
                    str(found["runs"]),
                    f"{found['auc_mean']:.4f}",
                    _number(found["auc_std"]),
                    gain,
                    _NOTHING if place == 0 else _interval(found),
                    *(cost_text(found, each) for each in costs),
                ]
            )
        )
    lines += ["", _notes(report)]
    law = report.get("scaling_law")
    if law:
        lines += ["", *law["sentences"]]
    return "\n".join(lines)


def heading(report: Mapping[str, Any]) -> str:
    """Returns what all runs have in common, the synthetic ones by name."""
    source = report.get("data_source", "?")
    loud = "**SYNTHETIC data.** " if "synthetic" in source else ""
    given = " ".join([*report["base_flags"], report["train_flags"]]).strip()
    title = report["sweep"] or "variants"
    return (
        f"{loud}{title} on {report['dataset']} ({source}, digest "
        f"{report.get('content') or 'unknown'}), AUC of the {report['part']}; "
        f"flags of all runs: {given or 'none'}."
    )


def cost_of(found: Mapping[str, Any], cost: str) -> float | None:
    """Returns a cost of a variant in the unit of `COST_TITLES`."""
    key = "train_seconds_median" if cost == "train_seconds" else cost
    value = found.get(key)
    if value is None:
        return None
    return float(value) / {"flops": 1e6, "state_bytes": 1e3}.get(cost, 1.0)


def cost_text(found: Mapping[str, Any], cost: str) -> str:
    """Returns a cost as text, and a dash for one that is not known."""
    value = cost_of(found, cost)
    if value is None:
        return _NOTHING
    return f"{value:,.2f}" if value < 10.0 else f"{value:,.0f}"


def _notes(report: Mapping[str, Any]) -> str:
    """Returns what the columns mean, and which runs are missing."""
    over = {found["gain_interval_over"] for found in report["summary"].values()}
    meanings = {
        "seeds": "of the mean over seeds (Student's t, paired)",
        "users": "over users, who are drawn again, the same for both, of a "
        "single seed: without what another seed would change",
    }
    told = [text for name, text in meanings.items() if name in over]
    text = "".join(f"Base: {name}. " for name in list(report["summary"])[:1])
    text += (
        "AUC: mean and standard deviation over seeds; differences are those "
        "of the same seeds."
    )
    if told:
        text += f" Interval: {'; or '.join(told)}."
    done = report["summary"].keys()
    missing = [name for name in report["variants"] if name not in done]
    if missing:
        text += f"\n\n**Not there**: {', '.join(missing)}."
    return text


def _interval(found: Mapping[str, Any]) -> str:
    ends = found["gain_interval"]
    if ends is None:
        return _NOTHING
    low, high = ends
    return f"{low:+.4f} to {high:+.4f} ({found['gain_interval_over']})"


def _signed(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:+.4f}"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.4f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
