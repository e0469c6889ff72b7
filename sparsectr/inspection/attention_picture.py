"""What attention reads, as a picture. Needs matplotlib."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from sparsectr.inspection.attention_report import GROUPS, BranchReport

_DPI = 100
_WIDTH = 13.0
_PANEL_HEIGHT = 2.9
_GAP = 0.6
"""Between the bars of two branches, in widths of a bar."""

# Told apart by the color-blind too (Okabe and Ito).
_COLORS = {
    "user": "#0072B2",
    "registers": "#56B4E9",
    "oldest": "#E69F00",
    "newest": "#009E73",
    "boundary_sinks": "#CC79A7",
    "other": "#BBBBBB",
    "sink": "#000000",
}


def draw(reports: Sequence[BranchReport], heading: str, path: Path) -> None:
    """Writes a PNG file, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        picture(reports, heading).savefig(partial, format="png", dpi=_DPI)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def picture(reports: Sequence[BranchReport], heading: str) -> Figure:
    """Returns the figure: a row for each block and kind of queries."""
    panels: dict[tuple[int, str], list[BranchReport]] = {}
    for report in reports:
        panels.setdefault((report.block, report.queries), []).append(report)
    figure = Figure(
        figsize=(_WIDTH, 1.2 + _PANEL_HEIGHT * len(panels)),
        layout="constrained",
    )
    figure.suptitle(heading, fontsize=11)
    rows = figure.subplots(
        len(panels), 2, squeeze=False, width_ratios=[3, 2], sharex="row"
    )
    for (left, right), (key, branches) in zip(
        rows, panels.items(), strict=True
    ):
        _draw_panel(left, right, key, branches)
    used = [name for name in GROUPS if any(name in r.mass for r in reports)]
    figure.legend(
        handles=[
            Patch(color=_COLORS[name], label=name.replace("_", " "))
            for name in used
        ],
        loc="outside lower center",
        ncols=len(used),
        frameon=False,
    )
    return figure


def _draw_panel(
    left: Axes,
    right: Axes,
    key: tuple[int, str],
    branches: Sequence[BranchReport],
) -> None:
    """Draws a block's masses and entropies, a bar for each head."""
    block, queries = key
    centers, labels, width = [], [], 0.0
    for report in branches:
        heads = len(report.entropy or report.gate or [0.0])
        places = width + np.arange(heads)
        width += heads + _GAP * 2
        centers.append(float(places.mean()))
        labels.append(_label(report))
        if report.entropy is None:
            continue
        bottom = np.zeros(heads)
        for name in GROUPS:
            mass = report.mass.get(name)
            if mass is not None:
                left.bar(places, mass, 0.86, bottom=bottom, color=_COLORS[name])
                bottom += mass
        if report.relative_entropy is not None:
            right.bar(places, report.relative_entropy, 0.86, color="#0072B2")
    opened = branches[0].output_gate  # the same for all of them
    left.set_title(
        f"block {block}, {branches[0].num_queries:,} {queries}: share of the "
        "attention, a bar for each head"
        + (f"; output gate {np.mean(opened):.2f}" if opened else ""),
        fontsize=10,
        loc="left",
    )
    right.set_title(
        "entropy / log of what may be read", fontsize=10, loc="left"
    )
    left.set_xlim(-1.0, width - _GAP)
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.set_ylim(0.0, 1.0)
        axes.set_xticks(centers, labels, fontsize=9)
        axes.tick_params(axis="x", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)


def _label(report: BranchReport) -> str:
    """Returns the name of a branch, its gate and its empty rows below."""
    lines = [report.branch]
    if report.gate is not None:
        lines.append(f"gate {np.mean(report.gate):.2f}")
    if report.num_empty:
        lines.append(f"{100 * (report.empty_share or 0.0):.1f} % empty")
    return "\n".join(lines)
