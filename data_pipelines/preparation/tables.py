"""Operations on arrow tables that several steps need."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.stores.hashing import mix
from data_pipelines.stores.id_sets import make_sets

Array = npt.NDArray[Any]


def drop_duplicates(
    table: pa.Table, columns: Sequence[str]
) -> tuple[pa.Table, int]:
    """Returns the first of all rows equal in `columns`, and how many went."""
    kept = is_first(table.select(list(columns)))
    return table.filter(pa.array(kept)), int((~kept).sum())


def is_first(table: pa.Table) -> Array:
    """Returns for each row whether it equals no earlier one."""
    # Codes, since pandas would make floats of integers beside a null.
    keys = pd.DataFrame(
        {
            name: _codes(column)
            for name, column in zip(
                table.column_names, table.columns, strict=True
            )
        }
    )
    first: Array = ~keys.duplicated().to_numpy()
    return first


def _codes(column: pa.ChunkedArray) -> Array:
    """Returns integers that are equal where the values are.

    Of lists they are hashes of 64 bits.
    """
    if pa.types.is_integer(column.type) and not column.null_count:
        values: Array = column.to_numpy()
        return values
    if pa.types.is_list(column.type):
        rows = column.combine_chunks()
        counts = pc.fill_null(pc.list_value_length(rows), -1).to_numpy()
        ids = _codes(pa.chunked_array([rows.flatten()]))
        own = make_sets(np.maximum(counts, 0), ids).hashed()
        return own ^ mix(counts)
    encoded = column.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # without a chunk
        return np.zeros(0, np.int64)
    codes: Array = encoded.indices.fill_null(-1).to_numpy()
    return codes


def look_up(
    table: pa.Table, key: str, features: pa.Table
) -> tuple[pa.Table, int]:
    """Adds the other columns of `features` by `key`, null where it is absent.

    Returns:
        The table with them, and how many of its rows found nothing.
    """
    place = pc.index_in(table[key], value_set=features[key])
    for name in features.column_names:
        if name != key:
            table = table.append_column(name, features[name].take(place))
    return table, place.null_count


def stable_order(major: Array, minor: Array) -> Array:
    """Returns the order by `major`, then `minor`, then place.

    Args:
        major: Integers, not negative.
        minor: Integers.
    """
    if not len(major):
        return np.zeros(0, np.int64)
    low = int(minor.min())
    minor_bits = (int(minor.max()) - low).bit_length()
    place_bits = (len(major) - 1).bit_length()
    major_bits = int(major.max()).bit_length()
    if major_bits + minor_bits + place_bits > 63:
        return np.lexsort((minor, major))
    # All in one integer: NumPy sorts these several times faster than it
    # finds a stable order of two columns.
    key = major.astype(np.int64) << minor_bits
    key += minor - low
    key <<= place_bits
    key += np.arange(len(major))
    key.sort()
    return key & ((1 << place_bits) - 1)
