r"""Tables and a plot of what `benchmarks.speed_memory` measured.

    python -m benchmarks.speed_report --input=FILE.json \
        --output=FOLDER

Writes `speed_memory.md`, `speed_memory.png`, and `speed_memory.html`, one
page that holds the plot and needs nothing else. Needs matplotlib:
pip install 'sparsectr[plots]'.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from sparsectr.errors import InputError
from sparsectr.process import command

_NAME = "speed_memory"
_DPI = 100
# Told apart by the color-blind too (Okabe and Ito).
_COLORS = {
    "full": "#0072B2",
    "all_pairs": "#009E73",
    "paper": "#E69F00",
    "target": "#000000",
}
_BASELINES = {
    "full": "full attention, like for like",
    "all_pairs": "the same, all pairs computed",
    "paper": "full attention, the paper's construction",
}
_OFFSETS = (-0.27, 0.0, 0.27)

Result = dict[str, Any]


class Table(NamedTuple):
    """A table, with what it shows as a heading."""

    heading: str
    header: list[str]
    rows: list[list[str]]


def tables_of(result: Result) -> list[Table]:
    """Returns all tables of the report."""
    return [
        *_speedup_tables(result),
        *_memory_tables(result),
        *_floor_tables(result),
        *_time_tables(result),
    ]


def _places(result: Result) -> list[tuple[str, str]]:
    """Returns scopes and modes that were measured, in order."""
    return list(
        dict.fromkeys((row["scope"], row["mode"]) for row in result["times"])
    )


def _speedup_tables(result: Result) -> list[Table]:
    presets = result["workload"]["presets"]
    tables = []
    for scope, mode in _places(result):
        rows = []
        for against, label in _BASELINES.items():
            found = {
                row["preset"]: row
                for row in result["speedups"]
                if (row["scope"], row["mode"], row["against"])
                == (scope, mode, against)
            }
            cells = [found[preset] for preset in presets]
            rows.append([f"against {label}", *map(_ratio, cells)])
            rows.append(["95 % interval", *map(_interval, cells)])
            if any(cell["target"] for cell in cells):
                rows.append(
                    ["target", *(f"{cell['target']:g}" for cell in cells)]
                )
        tables.append(
            Table(
                f"Times as fast, {mode}, {scope}",
                ["", *map(str.capitalize, presets)],
                rows,
            )
        )
    return tables


def _ratio(found: Result) -> str:
    if found["median"] is None:
        return "not told apart"
    return f"{found['median']:.1f}"


def _interval(found: Result) -> str:
    low, high = found["interval"]
    return f"{low:.1f} to {high:.1f}"


def _memory_tables(result: Result) -> list[Table]:
    tables = []
    for mode in dict.fromkeys(row["mode"] for row in result["memory"]):
        rows = []
        for row in result["memory"]:
            if row["mode"] != mode:
                continue
            for kind, count in row["bytes"].items():
                share = row["share_of_full"][kind]
                target = row["target_share"]
                rows.append(
                    [
                        row["name"],
                        row["execution"],
                        _KINDS[kind],
                        f"{count / 2**20:,.0f}",
                        "" if share is None else f"{100 * share:.1f} %",
                        "" if target is None else f"{100 * target:.0f} %",
                    ]
                )
        header = ["", "runs as", "by", "MiB", "of full attention's", "target"]
        tables.append(Table(f"Peak memory, {mode}", header, rows))
    return tables


_KINDS = {"compiler": "compiler's count", "resident": "resident size"}


def _floor_tables(result: Result) -> list[Table]:
    if result["floor"] is None:
        return []
    rows = [
        [
            row["name"],
            f"{row['needed_operations'] / 1e6:,.1f}",
            f"{row['compiled_operations'] / 1e6:,.1f}",
            f"{row['needed_bytes'] / 2**20:.2f}",
            f"{1000 * row['floor_seconds']:.3f}",
            f"{row['times_the_floor']:,.0f}",
        ]
        for row in result["floor"]["rows"]
    ]
    header = [
        "",
        "million operations of matrix products, by formula",
        "by XLA's program",
        "MiB to be read",
        "floor, ms",
        "measured / floor",
    ]
    return [Table("Floor, inference, model", header, rows)]


def _time_tables(result: Result) -> list[Table]:
    tables = []
    for scope, mode in _places(result):
        rows = []
        for row in result["times"]:
            if (row["scope"], row["mode"]) != (scope, mode):
                continue
            seconds = row["seconds"]
            rows.append(
                [
                    row["name"],
                    row["execution"],
                    *(
                        f"{1000 * seconds[part]:.2f}"
                        for part in (
                            "median",
                            "lower_quartile",
                            "upper_quartile",
                        )
                    ),
                ]
            )
        header = ["", "runs as", "median", "lower quartile", "upper quartile"]
        tables.append(Table(f"Milliseconds, {mode}, {scope}", header, rows))
    return tables


def notes_of(result: Result) -> list[str]:
    """Returns what a reader has to know to judge the figures."""
    environment, machine = result["environment"], result["machine"]
    device = ", ".join(environment["gpus"]) or (
        f"{environment['processor']}, {environment['cpu_cores']} cores"
    )
    shapes = "; ".join(
        f"{mode.capitalize()}: batch {shape['batch_size']}, "
        f"{shape['num_behaviors']} behaviors and {shape['num_candidates']} "
        f"candidates a request, {shape['precision']}, tables of "
        f"{shape['num_rows']:,} rows"
        for mode, shape in result["workload"]["shapes"].items()
    )
    notes = [
        f"{device}; TensorFlow {environment['tensorflow']}, Keras "
        f"{environment['keras']}, commit {environment['commit']}.",
        f"{shapes}. The requests are made: random ids and times.",
        "All things compared take turns; a ratio is the median of "
        f"{result['workload']['turns']['num_rounds']} rounds, each side in "
        "the faster one of graph and XLA. A ratio whose interval spans 1 is "
        "not shown.",
        "A fused kernel outside TensorFlow (FlashAttention) would be a "
        "stronger baseline than any full attention that TensorFlow offers.",
    ]
    if result["floor"] is not None:
        peaks = result["floor"]["peaks"]
        notes.append(
            "The floor of a pass is the longer of its matrix products at "
            f"{peaks['operations_per_second'] / 1e9:,.0f} billion operations "
            "a second (a product of two large matrices) and the rows it "
            f"reads at {peaks['bytes_per_second'] / 1e9:,.0f} GB/s (a large "
            "copy)."
        )
    if machine["busy"]:
        notes.append(
            "The machine was busy: other processes took "
            f"{100 * machine['others_share']:.0f} % of its processor time "
            f"(load average {machine['load_average_before']:.1f} before)."
        )
    return notes


def markdown(result: Result) -> str:
    """Returns the report as Markdown, the plot as a link."""
    parts = [
        "# Speed and memory",
        f"![Speed and memory]({_NAME}.png)",
        *(f"- {note}" for note in notes_of(result)),
    ]
    for table in tables_of(result):
        lines = [
            table.header,
            ["---"] + ["---:"] * (len(table.header) - 1),
            *table.rows,
        ]
        parts.append(f"## {table.heading}")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


_STYLE = """body { font: 16px sans-serif; max-width: 60em; margin: 2em auto; }
table { border-collapse: collapse; }
td, th { padding: 0.3em 0.8em; border-bottom: 1px solid #ccc; }
td + td, th + th { text-align: right; }
img { max-width: 100%; }"""


def page(result: Result, plot: bytes) -> str:
    """Returns the report as one HTML page, with the PNG file `plot` in it."""
    image = base64.b64encode(plot).decode("ascii")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>Speed and memory</title><style>{_STYLE}</style></head><body>",
        "<h1>Speed and memory</h1>",
        '<img alt="Speed-up and share of memory by preset" '
        f'src="data:image/png;base64,{image}">',
        "<ul>",
        *(f"<li>{html.escape(note)}</li>" for note in notes_of(result)),
        "</ul>",
    ]
    for table in tables_of(result):
        parts.append(f"<h2>{html.escape(table.heading)}</h2><table>")
        parts.append(_row("th", table.header))
        parts += [_row("td", row) for row in table.rows]
        parts.append("</table>")
    return "\n".join([*parts, "</body></html>", ""])


def _row(tag: str, cells: Sequence[str]) -> str:
    inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def plot(result: Result) -> bytes:
    """Returns the speed-ups and the shares of memory as a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    places = _places(result)
    memory_modes = list(dict.fromkeys(row["mode"] for row in result["memory"]))
    count = len(places) + len(memory_modes)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.2 * columns, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, axis in zip(places, axes, strict=False):
        _draw_speedups(axis, result, *place)
    for mode, axis in zip(memory_modes, axes[len(places) :], strict=False):
        _draw_memory(axis, result, mode)
    for axis in axes[count:]:
        axis.set_axis_off()
    handles: list[Any] = [
        Patch(color=_COLORS[name], label=f"against {label}")
        for name, label in _BASELINES.items()
    ]
    handles.append(Line2D([], [], color="k", linestyle="--", label="target"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_speedups(axis: Any, result: Result, scope: str, mode: str) -> None:
    presets = result["workload"]["presets"]
    for offset, against in zip(_OFFSETS, _BASELINES, strict=True):
        found = [
            row
            for row in result["speedups"]
            if (row["scope"], row["mode"], row["against"])
            == (scope, mode, against)
            and row["median"] is not None
        ]
        places = [presets.index(row["preset"]) + offset for row in found]
        medians = [row["median"] for row in found]
        axis.bar(places, medians, 0.25, color=_COLORS[against])
        for place, row in zip(places, found, strict=True):
            axis.vlines(place, *row["interval"], color="#555555")
            axis.annotate(
                f"{row['median']:.1f}",
                (place, _above(row, found)),
                (0, 2),
                textcoords="offset points",
                ha="center",
            )
        aims = [(p, r["target"]) for p, r in zip(places, found, strict=True)]
        _draw_targets(axis, [aim for aim in aims if aim[1]], 0.125)
    _label(axis, presets, f"{mode.capitalize()}, {scope}", "times as fast")


def _above(row: Result, shown: Sequence[Result]) -> float:
    """Returns where a label stands: not across the line of a target."""
    end = row["interval"][1]
    label = 0.1 * max(other["interval"][1] for other in shown)
    target = row["target"]
    if target is not None and end <= target < end + label:
        return float(target)
    return float(end)


def _draw_memory(axis: Any, result: Result, mode: str) -> None:
    presets = result["workload"]["presets"]
    found = {
        row["name"]: row
        for row in result["memory"]
        if row["mode"] == mode and row["execution"] == "xla"
    }
    shares = [100 * found[p]["share_of_full"]["compiler"] for p in presets]
    axis.bar(range(len(presets)), shares, 0.5, color=_COLORS["full"])
    for place, share in enumerate(shares):
        axis.annotate(
            f"{share:.1f} %",
            (place, share),
            (0, 2),
            textcoords="offset points",
            ha="center",
        )
    targets = [found[preset]["target_share"] for preset in presets]
    aims = [(i, 100 * t) for i, t in enumerate(targets) if t]
    _draw_targets(axis, aims, 0.25)
    unit = "% of full attention's, by XLA's count"
    _label(axis, presets, f"Peak memory, {mode}", unit)


def _label(axis: Any, presets: list[str], title: str, unit: str) -> None:
    axis.set_xticks(range(len(presets)), [p.capitalize() for p in presets])
    axis.set_xlim(-0.6, len(presets) - 0.4)
    axis.set_title(title)
    axis.set_ylabel(unit)
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_targets(axis: Any, aims: Sequence[Any], half: float) -> None:
    if aims:
        axis.hlines(
            [value for _, value in aims],
            [place - half for place, _ in aims],
            [place + half for place, _ in aims],
            color=_COLORS["target"],
            linestyles="dashed",
        )


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "input", None, "JSON file of benchmarks.speed_memory.", required=True
    )
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    source, folder = Path(flags.FLAGS.input), Path(flags.FLAGS.output)
    if not folder.is_dir():
        raise InputError(f"--output: {folder} is not a folder.")
    try:
        result = json.loads(source.read_text("utf-8"))
        text = markdown(result)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--input: {source} is not of benchmarks.speed_memory."
        ) from error
    with command.needs_matplotlib():
        image = plot(result)
    (folder / f"{_NAME}.md").write_text(text, "utf-8")
    (folder / f"{_NAME}.png").write_bytes(image)
    (folder / f"{_NAME}.html").write_text(page(result, image), "utf-8")


if __name__ == "__main__":
    define_flags()
    command.run(main)
