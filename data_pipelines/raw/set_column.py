"""A column with any number of values in each row."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.casting import cast
from data_pipelines.raw.raw_rows import RawRows


def set_column(
    rows: RawRows, name: str, kind: pa.DataType, separator: str | None = None
) -> pa.ChunkedArray:
    """Returns lists of values, empty where there is none.

    Args:
        rows: The rows.
        name: The column: lists, or texts if there is a `separator`.
        kind: Type of a value: int64 or string.
        separator: What stands between the values of a text.

    Raises:
        InputError: If a value is none of that type; the message names the
            first such row.
    """
    lists = rows.table[name].combine_chunks()
    if separator is not None:
        texts = cast(rows, name, pa.string()).combine_chunks()
        lists = pc.split_pattern(texts, separator)
    elif pa.types.is_null(lists.type):
        lists = lists.cast(pa.list_(kind))
    # This leaves out what may lie behind an absent list.
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    counts = counts.astype(np.int64)
    parent = np.repeat(np.arange(len(counts)), counts)
    entries = lists.flatten()
    if separator is not None:
        # Blanks around a part are none of it, and an empty one is no value.
        entries = pc.utf8_trim_whitespace(entries)
        kept = pc.not_equal(entries, "").to_numpy(zero_copy_only=False)
        entries, parent = entries.filter(pa.array(kept)), parent[kept]
        counts = np.bincount(parent, minlength=len(counts))
    inner = rows.of(name, entries, parent)
    values = cast(inner, name, kind).combine_chunks()
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.chunked_array([pa.ListArray.from_arrays(offset, values)])
