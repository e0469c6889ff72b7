"""The statistics of a store as one picture. Needs matplotlib."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from data_pipelines.description.describe_text import (
    share,
    source,
    split_rule,
)
from data_pipelines.description.duration_counts import CLASS_NAMES
from data_pipelines.description.integer_counts import IntegerCounts
from data_pipelines.description.periods import Periods, count_by_period
from data_pipelines.description.store_statistics import (
    StoreStatistics,
    field_tables,
)
from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.store import Store
from sparsectr.time_zone import TimeZone

Array = npt.NDArray[Any]

SIZE = (1600, 2000)
"""Width and height of the picture in pixels."""

_DPI = 100
_MAX_FIELDS = 16
_MAX_NAME = 36
# Room for the legend beyond the largest value.
_HEADROOM = 1.35

# Told apart by the color-blind too (Okabe and Ito).
_COLORS = {
    "train": "#0072B2",
    "test": "#E69F00",
    "pale train": "#A6CDE4",
    "pale test": "#F7DDA3",
    "all": "#999999",
    "cut": "#D55E00",
}


class _Bars(NamedTuple):
    """One series of a bar chart; `color` is a key of `_COLORS`."""

    label: str
    counts: Sequence[int]
    color: str


def draw(
    store: Store,
    statistics: StoreStatistics,
    path: Path,
    location: str | None = None,
) -> None:
    """Writes a PNG file, whole or not at all.

    Args:
        store: The store.
        statistics: What was counted in it.
        path: The file.
        location: What the user of the store calls it; `None` for its path.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        picture(store, statistics, location).savefig(
            partial, format="png", dpi=_DPI
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def picture(
    store: Store, statistics: StoreStatistics, location: str | None = None
) -> Figure:
    """Returns the figure, its panels from left to right and top to bottom."""
    figure = Figure(
        figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI),
        layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12),
    )
    is_synthetic = store.manifest.get("data_source") == "synthetic sample"
    figure.suptitle(
        _title(store, statistics, location or str(store.path)),
        fontsize=15,
        color="#B00000" if is_synthetic else "black",
    )
    grid = figure.add_gridspec(4, 6, height_ratios=[4, 4, 4, 5])
    for place, panel in enumerate((_lengths, _candidates, _gaps, _ages)):
        row, column = divmod(place, 2)
        axes = figure.add_subplot(grid[row, 3 * column : 3 * column + 3])
        panel(axes, statistics)
        _finish(axes)
    periods = count_by_period(statistics)
    for column, draw_panel in enumerate((_behaviors, _requests, _click_rate)):
        axes = figure.add_subplot(grid[2, 2 * column : 2 * column + 2])
        draw_panel(axes, periods)
        _date_axis(axes, periods, store.schema.time_zone)
        _finish(axes)
    missing = figure.add_subplot(grid[3, :3])
    _fields(missing, figure.add_subplot(grid[3, 3:]), store, statistics)
    return figure


def _title(store: Store, statistics: StoreStatistics, location: str) -> str:
    rule = split_rule(store)
    where = location if rule is None else f"{location}, split: {rule}"
    requests = [s.num_candidates.total for s in statistics.splits.values()]
    return (
        f"{store.schema.name} ({source(store)})\n{where}\n"
        f"{statistics.num_users:,} users, "
        f"{statistics.behaviors_by_day.total:,} behaviors, "
        f"{requests[0]:,} requests for training, {requests[1]:,} for test"
    )


def _lengths(axes: Axes, statistics: StoreStatistics) -> None:
    limit = statistics.max_history
    series = {}
    for split in SPLITS:
        counts = statistics.splits[split].history_length
        longer = share(counts.between(limit + 1), counts.total)
        series[f"{split}: {longer} longer than {limit:,}"] = counts
    _powers_of_two(axes, series, first=0)
    # The bar from 2^k on begins at k + 1/2.
    place = np.log2(limit + 1) + 0.5
    if place < axes.get_xlim()[1]:
        axes.axvline(
            place,
            color=_COLORS["cut"],
            linestyle="--",
            label=f"max_history {limit:,}",
        )
    axes.set(
        title="History length at request",
        xlabel="behaviors, uncut",
        ylabel="share of requests",
    )


def _candidates(axes: Axes, statistics: StoreStatistics) -> None:
    series = {}
    for split in SPLITS:
        counts = statistics.splits[split].num_candidates
        mean = f"{counts.sum / counts.total:.1f}" if counts.total else "-"
        series[f"{split}: {mean} on average"] = counts
    none = any(counts.between(0, 1) for counts in series.values())
    _powers_of_two(axes, series, first=0 if none else 1)
    axes.set(
        title="Candidates of a request",
        xlabel="candidates",
        ylabel="share of requests",
    )


def _powers_of_two(
    axes: Axes, series: Mapping[str, IntegerCounts], first: int
) -> None:
    """Draws shares of 0, 1, 2-3, 4-7 and so on, train and test."""
    longest = max(len(counts.counts) for counts in series.values()) - 1
    num_classes = max(longest, 1).bit_length() + 1
    edges = [0, *(2**power for power in range(num_classes))][first:]
    classes = list(itertools.pairwise(edges))
    names = [
        f"{start:,}" if end == start + 1 else f"{start:,}-{end - 1:,}"
        for start, end in classes
    ]
    bars = [
        _Bars(label, [counts.between(*edges) for edges in classes], split)
        for (label, counts), split in zip(series.items(), SPLITS, strict=True)
    ]
    _draw_bars(axes, names, bars)


def _gaps(axes: Axes, statistics: StoreStatistics) -> None:
    gaps, cuts = statistics.gap.classes(), statistics.shortest_cut.classes()
    cut_label = (
        f"shortest gap that TimeChunking cuts, of {statistics.num_chunks} "
        f"chunks\nof a user's newest {statistics.max_history:,}: "
        f"{share(cuts[0], sum(cuts))} at 0 s"
    )
    gap_label = f"all gaps: {share(gaps[0], sum(gaps))} are 0 s"
    bars = [_Bars(gap_label, gaps, "all"), _Bars(cut_label, cuts, "cut")]
    _draw_bars(axes, CLASS_NAMES, bars)
    axes.set(
        title="Gaps between neighboring behaviors of a user",
        xlabel="gap (classes widen about threefold)",
        ylabel="share of gaps, share of users",
    )


def _ages(axes: Axes, statistics: StoreStatistics) -> None:
    oldest = f"oldest of the newest {statistics.max_history:,}"
    bars = []
    for split in SPLITS:
        counts = statistics.splits[split].newest_age.classes()
        bars.append(_Bars(f"newest, {split}", counts, split))
    for split in SPLITS:
        counts = statistics.splits[split].oldest_age.classes()
        bars.append(_Bars(f"{oldest}, {split}", counts, f"pale {split}"))
    _draw_bars(axes, CLASS_NAMES, bars)
    axes.set(
        title="Age of the newest and of the oldest behavior read",
        xlabel="time before the request (classes widen about threefold)",
        ylabel="share of requests with a history",
    )


def _draw_bars(
    axes: Axes, names: Sequence[str], series: Sequence[_Bars]
) -> None:
    """Draws each series as shares of its own sum, side by side."""
    width = 0.8 / len(series)
    place = np.arange(len(names))
    for index, bars in enumerate(series):
        axes.bar(
            place - 0.4 + (index + 0.5) * width,
            np.array(bars.counts) / max(sum(bars.counts), 1),
            width,
            label=bars.label,
            color=_COLORS[bars.color],
        )
    axes.set_xticks(
        place, names, rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _behaviors(axes: Axes, periods: Periods) -> None:
    edges = _days(periods.edges)
    axes.stairs(periods.behaviors, edges, fill=True, color=_COLORS["all"])
    axes.set(title=f"Behaviors by {periods.unit}", ylabel="behaviors")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _requests(axes: Axes, periods: Periods) -> None:
    edges = _days(periods.edges)
    below = np.zeros_like(periods.behaviors)
    for split in SPLITS:
        top = below + periods.requests[split]
        axes.stairs(
            top,
            edges,
            baseline=below,
            fill=True,
            color=_COLORS[split],
            label=split,
        )
        below = top
    axes.set(title=f"Requests by {periods.unit}", ylabel="requests")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _click_rate(axes: Axes, periods: Periods) -> None:
    edges = _days(periods.edges)
    middle = (edges[:-1] + edges[1:]) / 2
    for split in SPLITS:
        candidates = periods.candidates[split]
        known = candidates > 0
        axes.plot(
            middle[known],
            periods.clicks[split][known] / candidates[known],
            marker="o",
            markersize=5,
            color=_COLORS[split],
            label=split,
        )
    axes.set(
        title=f"Click rate by {periods.unit}", ylabel="clicks / candidates"
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _days(edges: Array) -> Array:
    """Returns matplotlib's number of a date: days since 1970-01-01."""
    return edges.astype("datetime64[D]").astype(np.float64)


def _date_axis(axes: Axes, periods: Periods, time_zone: TimeZone) -> None:
    axes.set_xlim(*_days(periods.edges[[0, -1]]))
    locator = AutoDateLocator(  # type: ignore[no-untyped-call]
        minticks=3, maxticks=7
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    )
    axes.set_xlabel(f"{periods.unit}, {time_zone.name}")


def _fields(
    missing: Axes, unknown: Axes, store: Store, statistics: StoreStatistics
) -> None:
    """Draws the fields with the largest shares, in the schema's order."""
    shares = {
        name: np.array(
            [
                np.array([counts.missing, counts.out_of_vocabulary])
                / max(counts.rows, 1)
                for counts in splits.values()
            ]
        )
        for name, splits in statistics.fields.items()
    }
    most = sorted(shares, key=lambda name: -shares[name].max())[:_MAX_FIELDS]
    tables = field_tables(store.schema)
    names = [name for name in tables if name in most]
    # [splits, fields, missing and unknown]
    shown = np.stack([shares[name] for name in names], axis=1)
    _field_bars(missing, shown[:, :, 0])
    _field_bars(unknown, shown[:, :, 1])
    missing.set_yticks(
        range(len(names)), [_field_label(name, tables[name]) for name in names]
    )
    unknown.set_yticks(range(len(names)), [""] * len(names))
    note = ""
    if len(names) < len(tables):
        note = f" (the highest {len(names)} of {len(tables)} fields)"
    missing.set(title=f"Missing values{note}", ylabel="field (rows of table)")
    unknown.set(title=f"Out of vocabulary{note}")


def _field_bars(axes: Axes, shares: Array) -> None:
    """Draws shares `[splits, fields]`, the first field on top."""
    place = np.arange(shares.shape[1])
    for index, split in enumerate(SPLITS):
        axes.barh(
            place - 0.2 + 0.4 * index,
            shares[index],
            0.4,
            label=split,
            color=_COLORS[split],
        )
    axes.set_ylim(len(place) - 0.4, -0.6)
    axes.set_xlim(0, _HEADROOM * (shares.max() or 0.01))
    axes.set_xlabel("share of values")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if not shares.any():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
    _decorate(axes, "x", "lower right")


def _field_label(name: str, rows: int | None) -> str:
    if len(name) > _MAX_NAME:
        name = name[: _MAX_NAME - 3] + "..."
    return f"{name} ({'dense' if rows is None else f'{rows:,}'})"


def _finish(axes: Axes) -> None:
    """Lets counts and shares begin at 0, and makes room for the legend."""
    top = axes.dataLim.ymax
    # Infinite where nothing was drawn.
    axes.set_ylim(0, _HEADROOM * top if 0 < top < np.inf else 1)
    _decorate(axes, "y", "upper left")


def _decorate(
    axes: Axes,
    grid: Literal["x", "y"],
    legend: Literal["upper left", "lower right"],
) -> None:
    axis = axes.yaxis if grid == "y" else axes.xaxis
    if isinstance(axis.get_major_formatter(), PercentFormatter):
        # The room for the legend is no share.
        axis.set_ticks([tick for tick in axis.get_ticklocs() if tick <= 1])
    axes.grid(axis=grid, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=legend)
