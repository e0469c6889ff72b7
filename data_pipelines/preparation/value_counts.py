"""Tables of distinct values with their counts, added up over shards."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_MERGE_ROWS = 4_000_000
"""Values that are collected before equal ones are added up."""


def merge_counts(parts: Iterable[pa.Table]) -> pa.Table:
    """Adds up the counts of equal values, a few shards at a time.

    Args:
        parts: Columns `value`, distinct in each, and `count`, and more counts
            with names of their own.
    """
    waiting: list[pa.Table] = []
    num_rows = num_merged = 0
    for part in parts:
        waiting.append(part)
        num_rows += len(part)
        if num_rows > num_merged + _MERGE_ROWS:
            waiting = [_sum_counts(waiting)]
            num_rows = num_merged = len(waiting[0])
    return _sum_counts(waiting)


def sorted_counts(
    counts: pa.Table,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns integer values, ascending, and the count of each."""
    counts = counts.sort_by("value")
    return counts["value"].to_numpy(), counts["count"].to_numpy()


def _sum_counts(parts: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts)
    names = [name for name in table.column_names if name != "value"]
    found = table.group_by("value").aggregate([(n, "sum") for n in names])
    found = found.select(["value", *(f"{name}_sum" for name in names)])
    return found.rename_columns(["value", *names])
