"""Draws what the benchmarks of serving found. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

# Path, transport and attention. Colors are told apart by the color-blind too
# (Okabe and Ito).
_SERIES = {
    ("whole", "process", "evo"): ("Whole pass", "#0072B2", "-"),
    ("whole", "grpc", "evo"): ("Whole pass, gRPC", "#0072B2", "--"),
    ("compiled", "process", "evo"): ("Whole pass, XLA", "#56B4E9", "-"),
    ("encode", "process", "evo"): ("Encode", "#E69F00", "-"),
    ("encode", "grpc", "evo"): ("Encode, gRPC", "#E69F00", "--"),
    ("score", "process", "evo"): ("Score from state", "#009E73", "-"),
    ("score", "grpc", "evo"): ("Score from state, gRPC", "#009E73", "--"),
    ("pointwise", "process", "evo"): ("Pointwise", "#CC79A7", "-"),
    ("whole", "process", "full"): (
        "Whole pass, full attention",
        "#D55E00",
        "-",
    ),
    ("compiled", "process", "full"): (
        "Whole pass, full attention, XLA",
        "#D55E00",
        ":",
    ),
}
_SHOWN_LENGTH = 1024
_SHOWN_CANDIDATES = 100


def draw_latency(result: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG file of `benchmarks.serving_latency`.

    Args:
        result: The JSON of the benchmark.
        path: The file, replaced if it exists.
    """
    latency_figure(result).savefig(path, dpi=100, format="png")


def latency_figure(result: Mapping[str, Any]) -> Figure:
    """Returns what `draw_latency` writes."""
    workload = result["workload"]
    length = _nearest(workload["lengths"], _SHOWN_LENGTH)
    candidates = _nearest(workload["candidates"], _SHOWN_CANDIDATES)
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    figure.suptitle(
        "Milliseconds of a request of one user: median, and up to the 99th "
        f"percentile; {_device(result['environment'])}"
    )
    by_length, by_candidates = figure.subplots(1, 2, sharey=True)
    for axes, x, fixed, value, label in (
        (
            by_length,
            "num_behaviors",
            "num_candidates",
            candidates,
            f"Behaviors of a history; {candidates} candidates",
        ),
        (
            by_candidates,
            "num_candidates",
            "num_behaviors",
            length,
            f"Candidates; {length:,} behaviors (full attention: "
            f"{workload['full_length']})",
        ),
    ):
        _draw_series(axes, result, x, fixed, value)
        axes.set_xlabel(label)
    by_length.set_xticks(workload["lengths"])
    by_candidates.set_xticks(workload["candidates"])
    by_length.set_ylabel("Milliseconds")
    handles, labels = by_length.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def _draw_series(
    axes: Axes, result: Mapping[str, Any], x: str, fixed: str, value: int
) -> None:
    for series, (label, color, style) in _SERIES.items():
        rows = [
            row
            for row in result["milliseconds"]
            if (row["path"], row["transport"], row["attention"]) == series
            # Encoding has no candidates and full attention one length.
            and (
                row[fixed] in (value, 0)
                or (fixed == "num_behaviors" and series[2] == "full")
            )
            and row[x]
        ]
        if not rows:
            continue
        places = [row[x] for row in rows]
        axes.plot(
            places,
            [row["p50"] for row in rows],
            style,
            color=color,
            marker="o",
            label=label,
        )
        axes.fill_between(
            places,
            [row["p50"] for row in rows],
            [row["p99"] for row in rows],
            color=color,
            alpha=0.12,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def draw_load(result: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG file of `benchmarks.serving_load`.

    Args:
        result: The JSON of the benchmark.
        path: The file, replaced if it exists.
    """
    load_figure(result).savefig(path, dpi=100, format="png")


def load_figure(result: Mapping[str, Any]) -> Figure:
    """Returns what `draw_load` writes."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    figure.suptitle(
        f"{result['workload']['path']}, {result['workload']['num_behaviors']} "
        f"behaviors, {result['workload']['num_candidates']} candidates, open "
        f"loop by gRPC; {_device(result['environment'])}"
    )
    latency, over_time = figure.subplots(1, 2)
    steps = result["steps"]
    rates = [step["offered"] for step in steps]
    for percent, color in (("p50", "#0072B2"), ("p99", "#D55E00")):
        latency.plot(
            rates,
            [step[percent] for step in steps],
            marker="o",
            color=color,
            label=percent,
        )
    if result["saturation"] is not None:
        latency.axvline(
            result["saturation"], color="black", ls=":", label="saturation"
        )
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    latency.set_xlabel("Requests a second, offered")
    latency.set_ylabel("Milliseconds from when a request was due")
    latency.legend(frameon=False)
    latency.grid(alpha=0.3)
    _draw_memory(over_time, result["soak"])
    return figure


def _draw_memory(axes: Axes, soak: Mapping[str, Any] | None) -> None:
    known = [
        (part["minute"], part["server_bytes"] / 2**20)
        for part in (soak["minutes"] if soak else [])
        if part["server_bytes"] is not None
    ]
    if soak is None or not known:
        axes.set_visible(False)
        return
    axes.plot(*zip(*known, strict=True), marker=".", color="#009E73")
    # Growth shows only against all of it.
    axes.set_ylim(0.0, 1.1 * max(size for _, size in known))
    axes.set_xlabel(
        f"Minutes at {soak['offered']:.4g} requests a second; "
        f"{soak['num_errors']} errors"
    )
    axes.set_ylabel("Resident memory of the server, MiB")
    axes.grid(alpha=0.3)


def _nearest(values: list[int], wanted: int) -> int:
    return min(values, key=lambda value: abs(value - wanted))


def _device(environment: Mapping[str, Any]) -> str:
    if environment["gpus"]:
        return str(environment["gpus"][0])
    return f"{environment['processor']}, {environment['cpu_cores']} cores"
