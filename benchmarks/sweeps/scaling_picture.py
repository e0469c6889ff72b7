"""Draws AUC against operations, with lines of one length and of one size."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

# Told apart by the color-blind too (Okabe and Ito).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_LINE = 180
"""Letters of a line above the picture."""


def scaling_picture(law: Mapping[str, Any], title: str) -> Figure:
    """Returns the figure.

    Args:
        law: What `scaling_law` returns.
        title: What the runs are of.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    lines = [fill(text, _LINE) for text in (title, *law["sentences"])]
    figure.suptitle("\n".join(lines), fontsize=9)
    points = {k: np.array(v) for k, v in law["points"].items()}
    for axes, isoline, other in zip(
        figure.subplots(1, 2, sharey=True),
        ("size", "length"),
        ("length", "size"),
        strict=True,
    ):
        _draw_law(axes, points, is_known=law["is_identifiable"])
        _draw_isolines(axes, points, isoline, other)
        axes.set_xscale("log")
        axes.set_xlabel("FLOPs of a pass of one request")
        axes.set_title(f"Lines of one {isoline}, along which {other} grows")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4f}"))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel(
        "AUC, 95 % interval over seeds and users (who move all points alike)"
    )
    return figure


def _draw_law(axes: Axes, points: Mapping[str, Any], *, is_known: bool) -> None:
    order = np.argsort(points["flops"])
    flops = points["flops"][order]
    low, high = points["fitted_interval"][order].T
    label = "E - A / X^alpha" + ("" if is_known else ", not identifiable")
    axes.plot(flops, points["fitted"][order], color="0.3", label=label)
    axes.fill_between(flops, low, high, color="0.3", alpha=0.15, linewidth=0)


def _draw_isolines(
    axes: Axes, points: Mapping[str, Any], isoline: str, other: str
) -> None:
    named = {
        "size": "{:,} parameters".format,
        "length": "{:,} behaviors".format,
    }
    for number, value in enumerate(np.unique(points[isoline])):
        of_line = np.flatnonzero(points[isoline] == value)
        of_line = of_line[np.argsort(points[other][of_line])]
        auc = points["auc"][of_line]
        low, high = points["interval"][of_line].T
        axes.errorbar(
            points["flops"][of_line],
            auc,
            yerr=[np.maximum(auc - low, 0.0), np.maximum(high - auc, 0.0)],
            color=_COLORS[number % len(_COLORS)],
            marker="o",
            linestyle="--",
            linewidth=1,
            capsize=3,
            label=named[isoline](value),
        )
