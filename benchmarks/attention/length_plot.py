"""Draws what `benchmarks.length_scaling` found. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

# Told apart by the color-blind too (Okabe and Ito).
_SERIES = {
    "full inference": ("Full attention, whole pass", "#D55E00", "--"),
    "full training": ("Full attention, training step", "#D55E00", "-"),
    "evo inference": ("SparseCTR, whole pass", "#0072B2", "--"),
    "evo training": ("SparseCTR, training step", "#0072B2", "-"),
    "score": ("SparseCTR, score from a user state", "#009E73", "-"),
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG file.

    Args:
        result: The JSON of the benchmark.
        path: The file, replaced if it exists.
    """
    figure = Figure(figsize=(12, 7), layout="constrained")
    workload = result["workload"]
    figure.suptitle(
        f"{workload['batch_size']} request(s), {workload['num_candidates']} "
        f"candidates each, {result['precision']}, {result['execution']}; "
        f"{_device(result['environment'])}"
    )
    calls, costs = figure.subplots(1, 2)
    _draw_calls(calls, result)
    _draw_costs(costs, result)
    for axes in (calls, costs):
        axes.set_xscale("log")
        axes.set_xticks(workload["lengths"])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("Behaviors of a history")
        axes.grid(alpha=0.3)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            ncols=1,
            frameon=False,
        )
    figure.savefig(path, dpi=100, format="png")


def _draw_calls(axes: Axes, result: Mapping[str, Any]) -> None:
    for kind, (label, color, style) in _SERIES.items():
        found = [
            (length, result["seconds"][name])
            for length in result["workload"]["lengths"]
            if (name := f"{kind} {length}") in result["seconds"]
        ]
        if not found:
            continue
        lengths = [length for length, _ in found]
        low, median, high = (
            [1e3 * seconds[name] for _, seconds in found]
            for name in ("lower_quartile", "median", "upper_quartile")
        )
        axes.plot(lengths, median, style, color=color, marker="o", label=label)
        axes.fill_between(lengths, low, high, color=color, alpha=0.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.set_ylabel("Milliseconds of a call (median, quartiles)")


def _draw_costs(axes: Axes, result: Mapping[str, Any]) -> None:
    for mode, cost in result["cost_per_behavior"].items():
        label, color, style = _SERIES[f"evo {mode}"]
        lengths = [int(length) for length in cost["without_fixed"]]
        axes.plot(
            lengths,
            list(cost["without_fixed"].values()),
            style,
            color=color,
            marker="o",
            label=f"{label}, without {cost['fixed_milliseconds']:.2f} ms",
        )
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("Microseconds of a behavior, fixed part taken off")


def _device(environment: Mapping[str, Any]) -> str:
    if environment["gpus"]:
        return str(environment["gpus"][0])
    return f"{environment['processor']}, {environment['cpu_cores']} cores"
