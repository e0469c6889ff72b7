"""What was measured, as text."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any


def say(text: str) -> None:
    """Tells what is being done, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines, the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def with_quartiles(
    found: Mapping[str, float] | None, factor: float = 1.0
) -> str:
    """Returns a `spread`, times a factor, as `2.1 (2.0-2.3)`."""
    if found is None:
        return "-"
    low, high = found["lower_quartile"], found["upper_quartile"]
    return _with_range(found["median"] * factor, low * factor, high * factor)


def with_interval(found: Mapping[str, Any] | None) -> str:
    """Returns a `speedup` likewise; `?` where neither is faster."""
    if found is None:
        return "-"
    return _with_range(found["median"], *found["interval"])


def _with_range(median: float | None, low: float, high: float) -> str:
    shown = "?" if median is None else f"{median:.3g}"
    return f"{shown} ({low:.3g}-{high:.3g})"


def disturbance(load: Mapping[str, Any]) -> list[str]:
    """Returns a line if `MachineLoad` says that others disturbed."""
    if not load["busy"]:
        return []
    return [
        f"The machine was busy: others took {load['others_share']:.0%} of its "
        "processors."
    ]
