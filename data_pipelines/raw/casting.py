"""Columns as files have them to the few types of a raw table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.raw_rows import RawRows

_EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""Whole numbers of so many bits are exact in a float of so many."""

_LARGEST = 2**63 - 1


def cast(rows: RawRows, name: str, wanted: pa.DataType) -> pa.ChunkedArray:
    """Returns a column of rows as another type.

    NaN is null, and so is the empty text, as in a file of text.

    Nothing but float32 rounds. At 2^53 a float of 64 bits cannot say any more
    which whole number was written into it, so that two ids could become one:
    from there on it is refused as an integer.

    Args:
        rows: The rows.
        name: The column.
        wanted: int64, float32 or string.

    Raises:
        InputError: If a value is none of that type; the message names the
            first such row.
    """
    column = rows.table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column.type
    if pa.types.is_float16(found):  # arrow can do little with it
        column = column.cast(pa.float32())
    if pa.types.is_floating(found):
        column = pc.if_else(pc.is_nan(column), None, column)
    if is_text(found):
        column = _cast(rows, name, column, pa.string())
        column = pc.if_else(pc.equal(column, ""), None, column)
    if pa.types.is_integer(wanted):
        if pa.types.is_floating(found):
            bits = _EXACT_BITS[found.bit_width]
            _require(
                rows,
                pc.less(pc.abs(column), 2.0**bits),
                f"`{name}` of type {found} holds whole numbers exactly only "
                f"below 2^{bits}; write the column as integers or as text",
                name,
            )
        elif found == pa.uint64():
            _require(
                rows,
                pc.less_equal(column, pa.scalar(_LARGEST, found)),
                f"`{name}` is above {_LARGEST}, the largest whole number; "
                "write the column as text",
                name,
            )
    made = _cast(rows, name, column, wanted)
    if pa.types.is_floating(wanted):
        rule = f"`{name}` is not a finite number of 32 bits"
        _require(rows, pc.is_finite(made), rule, name)
    return made


def is_text(column_type: pa.DataType) -> bool:
    """Whether a column holds texts, or bytes that may be some.

    Older writers do not say that their texts are.
    """
    return any(
        check(column_type)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _cast(
    rows: RawRows, name: str, column: pa.ChunkedArray, wanted: pa.DataType
) -> pa.ChunkedArray:
    try:
        return column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except pa.ArrowException:
        valid = np.ones(len(column), bool)
        valid[_first_refused(column, wanted)] = False
        found = rows.table[name].type
        rule = f"`{name}` of type {found} cannot be read as {wanted}"
        rows.require(valid, rule, name)
        raise


def _require(
    rows: RawRows, valid: pa.ChunkedArray, rule: str, name: str
) -> None:
    """Checks the values that are not missing."""
    rows.require(valid.fill_null(True), rule, name)


def _first_refused(column: pa.ChunkedArray, wanted: pa.DataType) -> int:
    """Returns the row that a cast refuses, of which arrow tells the value."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).cast(wanted)
            low = middle
        except pa.ArrowException:
            high = middle
    return low
