"""Draws a sweep: differences to the base, and AUC against cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks.measuring.result_files import write_whole
from benchmarks.sweeps.sweep_table import COST_TITLES, cost_of, heading

_DPI = 100
_INCHES_A_ROW = 0.35

# Told apart by the color-blind too (Okabe and Ito).
_BLUE, _VERMILION, _BLACK = "#0072B2", "#D55E00", "#000000"


def draw(figure: Figure, path: Path) -> None:
    """Writes a PNG file, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))


def picture(report: Mapping[str, Any], cost: str) -> Figure:
    """Returns the figure, with the intervals that are known.

    Args:
        report: What the file of the sweep holds, with its summary.
        cost: One of `configs.sweep.COSTS`.
    """
    summary = report["summary"]
    height = max(5.0, 2.0 + _INCHES_A_ROW * len(summary))
    figure = Figure(figsize=(13, height), layout="constrained")
    figure.suptitle(heading(report).replace("**", ""), fontsize=9, wrap=True)
    gains, costs = figure.subplots(1, 2)
    _draw_gains(gains, summary)
    _draw_costs(costs, summary, cost)
    return figure


def _draw_gains(axes: Axes, summary: Mapping[str, Any]) -> None:
    names = list(summary)
    for place, (name, found) in enumerate(summary.items()):
        if place == 0 or found["gain_mean"] is None:
            continue
        ends = found["gain_interval"]
        is_clear = ends is not None and (ends[0] > 0.0 or ends[1] < 0.0)
        axes.errorbar(
            [found["gain_mean"]],
            [place],
            xerr=_arms(found["gain_mean"], ends),
            fmt="o",
            capsize=5,
            color=_BLUE if is_clear else "0.5",
            label=name,
        )
    axes.axvline(0.0, color=_BLACK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(
        f"AUC minus that of {names[0] if names else 'the base'}, 95 % "
        "interval (gray: holds 0)"
    )
    _plain(axes)


def _draw_costs(axes: Axes, summary: Mapping[str, Any], cost: str) -> None:
    known = {
        name: (value, found)
        for name, found in summary.items()
        if (value := cost_of(found, cost)) is not None
    }
    for place, (name, (value, found)) in enumerate(known.items()):
        axes.errorbar(
            [value],
            [found["auc_mean"]],
            yerr=_arms(found["auc_mean"], found["auc_interval"]),
            fmt="o",
            capsize=5,
            color=_BLUE if place else _VERMILION,
        )
        axes.annotate(
            name,
            (value, found["auc_mean"]),
            textcoords="offset points",
            xytext=(6, 5),
            fontsize=8,
        )
    if known:
        axes.set_xscale("log")
    axes.set_xlabel(COST_TITLES[cost])
    axes.set_ylabel("AUC, 95 % interval (red: the base)")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4f}"))
    _plain(axes)


def _arms(
    mean: float, ends: Sequence[float] | None
) -> list[list[float]] | None:
    """Returns how far an interval reaches from a mean, both ways."""
    if ends is None:
        return None
    return [[max(mean - ends[0], 0.0)], [max(ends[1] - mean, 0.0)]]


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.1)
