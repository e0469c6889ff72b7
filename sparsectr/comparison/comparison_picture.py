"""A comparison as a picture: AUC against seconds. Needs matplotlib."""

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from sparsectr.comparison.comparison_table import heading
from sparsectr.comparison.seed_groups import SeedGroup

SIZE = (1200, 800)
"""Width and height of the picture in pixels; the legend adds to the height."""

_DPI = 100
_LEGEND_ROW = 24
_MAX_LABEL = 90

# Told apart by the color-blind too (Okabe and Ito); then by their marker.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


def draw(groups: Sequence[SeedGroup], path: Path) -> None:
    """Writes a PNG file, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        picture(groups).savefig(partial, format="png", dpi=_DPI)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def picture(groups: Sequence[SeedGroup]) -> Figure:
    """Returns the figure: a mark with its error for each group."""
    height = SIZE[1] + _LEGEND_ROW * len(groups)
    figure = Figure(
        figsize=(SIZE[0] / _DPI, height / _DPI), layout="constrained"
    )
    axes = figure.add_subplot()
    common, floors = heading(groups[0].runs[0]).splitlines()
    what, _, content = common.partition("; ")
    figure.suptitle(f"{what}\n{content}", fontsize=12)
    axes.set_title(floors, fontsize=10)
    for number, group in enumerate(groups):
        _draw_group(axes, group, number)
    axes.set_xlabel("seconds of training, mean of the seeds")
    axes.set_ylabel("AUC")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4f}"))
    axes.set_xlim(left=0.0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.1)
    figure.legend(loc="outside lower left", fontsize=10, frameon=False)
    return figure


def _draw_group(axes: Axes, group: SeedGroup, number: int) -> None:
    spread = group.spread("auc")
    if spread is None:
        return
    color = _COLORS[number % len(_COLORS)]
    marker = _MARKERS[number // len(_COLORS) % len(_MARKERS)]
    if spread.deviation is None:
        error = group.auc_standard_error
        meaning = "standard error over users"
    else:
        error = spread.deviation
        meaning = f"standard deviation of {spread.count} seeds, each a dot"
        axes.scatter(
            [run.train_seconds for run in group.runs],
            [run.metrics["auc"] or 0.0 for run in group.runs],
            color=color,
            alpha=0.4,
            s=18,
            linewidths=0,
        )
    label = group.label
    if len(label) > _MAX_LABEL:
        label = f"{label[: _MAX_LABEL - 3]}..."
    axes.errorbar(
        [group.train_seconds],
        [spread.mean],
        yerr=[error or 0.0],
        color=color,
        marker=marker,
        markersize=9,
        capsize=6,
        linestyle="none",
        label=f"{label}: {spread.mean:.4f} ± {error or 0.0:.4f} ({meaning})",
    )
