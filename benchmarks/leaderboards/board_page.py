"""A table of models as one page that needs nothing else. Needs matplotlib."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.leaderboards.board import missing_runs
from benchmarks.leaderboards.board_table import (
    HEADER,
    TableRow,
    cells,
    footnotes,
    heading,
    table_rows,
)

Cost = Callable[[TableRow], float | None]

_OURS = "sparse_ctr"
_COLORS = {True: "#D55E00", False: "#0072B2"}
"""Of our own model and of all others; told apart by the color-blind too."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 75rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.6rem; border-bottom: 1px solid #ddd;
  text-align: right; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: #fff; }
tr.ours td { font-weight: 600; }
svg { max-width: 100%; height: auto; }
.warning { font-weight: 600; }
"""


def page(
    rows: Mapping[str, Any],
    protocol: Mapping[str, Any],
    seeds: Sequence[str],
    costs: Mapping[str, Any] | None = None,
) -> str:
    """Returns the page as HTML, its pictures in it as SVG."""
    found = table_rows(rows, costs)
    title = f"Models on {protocol['dataset']}"
    body = [f"<h1>{html.escape(title)}</h1>"]
    body.append(f"<p>{_text(heading(protocol, rows))}</p>")
    lacking = missing_runs(rows, seeds)
    if lacking:
        what = "; ".join(f"{n}: {', '.join(s)}" for n, s in lacking.items())
        body.append(
            '<p class="warning">Not finished; seeds that are missing: '
            f"{html.escape(what)}</p>"
        )
    if found:
        body += [
            f'<div class="scroll">{_table(found)}</div>',
            f"<p>{_text(footnotes(found))}</p>",
            *(f"<figure>{_svg(figure)}</figure>" for figure in pictures(found)),
        ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def pictures(rows: Sequence[TableRow]) -> list[Figure]:
    """Returns AUC with its interval, and AUC against what it costs."""
    found = [_intervals(rows)]
    costs: list[tuple[str, Cost]] = [
        ("seconds of training (mean of the seeds)", lambda r: r.train_seconds),
        ("milliseconds of a score, history of 128", _score_of("128")),
        ("milliseconds of a score, history of 1,024", _score_of("1024")),
    ]
    known = [(label, of) for label, of in costs if any(map(of, rows))]
    figure = Figure(figsize=(6.5 * len(known), 5), layout="constrained")
    for place, (label, of) in enumerate(known, 1):
        axes = figure.add_subplot(1, len(known), place)
        _against(axes, rows, label, of)
    return [*found, figure]


def _score_of(length: str) -> Cost:
    return lambda row: row.cost.get(length, {}).get("score_milliseconds")


def _intervals(rows: Sequence[TableRow]) -> Figure:
    figure = Figure(figsize=(11, 1.2 + 0.38 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(reversed(rows)):
        low, high = row.auc_interval
        color = _COLORS[row.name.startswith(_OURS)]
        axes.plot([low, high], [place, place], color=color, alpha=0.35, lw=6)
        axes.errorbar(
            [row.auc],
            [place],
            xerr=[row.deviation or 0.0],
            color=color,
            marker="o",
            capsize=4,
        )
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set_xlabel(
        "AUC: dot and whiskers are mean and standard deviation over seeds, "
        "the bar is the 95 % interval over users"
    )
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _against(
    axes: Axes,
    rows: Sequence[TableRow],
    label: str,
    of: Cost,
) -> None:
    for row in rows:
        value = of(row)
        if value:
            color = _COLORS[row.name.startswith(_OURS)]
            axes.plot([value], [row.auc], "o", color=color)
            axes.annotate(
                row.name,
                (value, row.auc),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("AUC")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _table(rows: Sequence[TableRow]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in HEADER)
    body = []
    for row in rows:
        texts = "".join(f"<td>{html.escape(text)}</td>" for text in cells(row))
        kind = ' class="ours"' if row.name.startswith(_OURS) else ""
        body.append(f"<tr{kind}>{texts}</tr>")
    return (
        f"<table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _text(markdown: str) -> str:
    """Returns a line of ours, whose only mark is bold, as HTML."""
    parts = html.escape(markdown).split("**")
    return "".join(
        f"<strong>{part}</strong>" if place % 2 else part
        for place, part in enumerate(parts)
    )


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
