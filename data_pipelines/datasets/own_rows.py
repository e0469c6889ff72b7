"""Rows of one's own files to the columns that a raw table has."""

import dataclasses
import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.datasets.schema_file import TIME_UNITS
from data_pipelines.raw.casting import cast, is_text
from data_pipelines.raw.raw_dataset import EXACT_TIME
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.set_column import set_column
from sparsectr.schema import LATEST_TIME
from sparsectr.time_zone import TimeZone

Integers = npt.NDArray[np.int64]

_EARLIEST = 100_000_000
"""Seconds of 1973: a time before, in a unit below a second, is in another."""

_POSITION_BITS = 20
_ROW_BITS = 28
"""A row of lists becomes rows that are numbered by file row and position."""

_EMPTY = {
    "requests": "requests without a candidate",
    "behaviors": "users without a behavior",
}

_UNIX_EPOCH = datetime.datetime(1970, 1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column to be made.

    Args:
        name: Its name.
        source: The column of the file.
        kind: Type of its values. None but a number is float32.
        is_set: Whether it has a list of them in each row.
        separator: What stands between them, where a list is a text.
    """

    name: str
    source: str
    kind: pa.DataType
    is_set: bool = False
    separator: str | None = None

    @property
    def num_lists(self) -> int:
        """How many lists deep an entry is in the file."""
        return int(self.is_set and self.separator is None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeColumn:
    """The column of the times.

    Args:
        source: The column of the file.
        unit: What its numbers count since 1970.
        time_zone: That of its timestamps without one.
        is_exact: Whether any file tells times less than a second apart.
    """

    source: str
    unit: str
    time_zone: TimeZone
    is_exact: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnRows:
    """The conversion of a raw table: call it with a block of its rows.

    Args:
        noun: What the rows are.
        columns: The columns to be made. The first names the user or the
            item; rows without are dropped.
        time: The column of the times, if there is one.
        label: Column of the file with the labels, if there is one.
        weight: Column of the file with the weights, if there is one.
        request: The column of request ids, if there is one.
        has_requests: Whether rows belong to requests.
        lists: Columns of the file that are lists, one value a candidate or a
            behavior.
    """

    noun: str
    columns: tuple[Column, ...]
    time: TimeColumn | None = None
    label: str | None = None
    weight: str | None = None
    request: Column | None = None
    has_requests: bool = False
    lists: tuple[str, ...] = ()

    def __call__(self, rows: RawRows) -> None:
        """Checks the rows and gives them their final columns.

        Raises:
            InputError: If a value is not what the schema file says.
        """
        key = self.columns[0]
        rows.drop_unless(
            cast(rows, key.source, key.kind).is_valid(),
            f"{self.noun} without `{key.source}`",
        )
        numbers = rows.row
        if self.lists:
            numbers = _explode(rows, self.lists, self.noun)
        made = {column.name: _values(rows, column) for column in self.columns}
        if self.time is not None:
            time, exact = _times(rows, self.time)
            made["time"] = pa.chunked_array([time])
            if self.time.is_exact:
                made[EXACT_TIME] = pa.chunked_array([exact])
            if self.request is not None:
                made["request"] = cast(
                    rows, self.request.source, self.request.kind
                )
                rows.require(
                    made["request"].is_valid(),
                    f"`{self.request.source}` is missing",
                )
            elif self.lists:
                # A row is a request, even where two are of one second.
                made["request"] = pa.chunked_array(
                    [(time << 31) | (rows.row & ((1 << 31) - 1))]
                )
            elif self.has_requests:
                made["request"] = pa.chunked_array([exact])
        if self.label is not None:
            made["label"] = _labels(rows, self.label)
        if self.weight is not None:
            made["weight"] = _weights(rows, self.weight)
        rows.table = pa.table(made)
        rows.row = numbers


def _values(rows: RawRows, column: Column) -> pa.ChunkedArray:
    """Returns a column as a raw table has it."""
    if not column.is_set:
        return cast(rows, column.source, column.kind)
    return set_column(rows, column.source, column.kind, column.separator)


def _explode(rows: RawRows, lists: tuple[str, ...], noun: str) -> Integers:
    """Makes one row of each candidate, or of each behavior.

    Returns:
        The number of each row: none repeats, unlike those in `rows.row`,
        which still tell the row of the file.
    """
    lengths = {name: _lengths(rows.table[name]) for name in lists}
    number = lengths[lists[0]]
    for name in lists[1:]:
        rows.require(
            lengths[name] == number,
            f"the lists `{lists[0]}` and `{name}` differ in length",
        )
    rows.require(
        (number < 1 << _POSITION_BITS) & (rows.row < 1 << _ROW_BITS),
        f"a list has less than {1 << _POSITION_BITS:,} entries, and a file of "
        f"{noun} less than {1 << _ROW_BITS:,} rows",
    )
    rows.drop_unless(number > 0, _EMPTY[noun])
    number = number[number > 0]
    parent = np.repeat(np.arange(len(number)), number)
    position = np.arange(len(parent)) - np.repeat(
        np.cumsum(number) - number, number
    )
    table = rows.table
    rows.table = pa.table(
        {
            name: pc.list_flatten(column)
            if name in lists and not pa.types.is_null(column.type)
            else column.take(pa.array(parent))
            for name, column in zip(
                table.column_names, table.columns, strict=True
            )
        }
    )
    rows.row = rows.row[parent]
    return (rows.row << _POSITION_BITS) | position


def _lengths(column: pa.ChunkedArray) -> Integers:
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    lengths: Integers = (
        pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    )
    return lengths


def _weights(rows: RawRows, name: str) -> pa.ChunkedArray:
    weights = cast(rows, name, pa.float32())
    rows.require(
        pc.greater(weights, 0.0), f"the weight `{name}` is above 0", name
    )
    return weights


def _labels(rows: RawRows, name: str) -> pa.ChunkedArray:
    numbers = cast(rows, name, pa.float32())
    rows.require(
        pc.is_in(numbers, value_set=pa.array([0.0, 1.0], numbers.type)),
        f"the label `{name}` is 0 or 1",
        name,
    )
    return numbers.cast(pa.int64())


def _times(rows: RawRows, time: TimeColumn) -> tuple[Integers, Integers]:
    """Returns the times in Unix seconds, and in nanoseconds.

    Files of one table may have them in types of different units.

    Raises:
        InputError: If one is missing or not from 1970 to 2100.
    """
    name = time.source
    column = _times_of_texts(rows, name)
    rows.require(column.is_valid(), f"`{name}` is missing")
    is_timestamp = pa.types.is_timestamp(column.type)
    if is_timestamp:
        per_second = TIME_UNITS[column.type.unit][1]
        is_local = column.type.tz is None
        counts = column.cast(pa.int64()).to_numpy()
        if is_local:
            local = counts // per_second
            counts = counts + per_second * (
                time.time_zone.universal(local) - local
            )
    elif pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        numbers = column.cast(pa.float64()).to_numpy()
        # Those that no integer holds are refused as any other below.
        bound = float(1 << 62)
        per_second = 10**6
        micro = numbers * (per_second / TIME_UNITS[time.unit][1])
        counts = np.nan_to_num(micro, nan=-1.0).clip(-bound, bound)
        counts = np.floor(counts).astype(np.int64)
    else:
        per_second = TIME_UNITS[time.unit][1]
        counts = cast(rows, name, pa.int64()).to_numpy()
    seconds: Integers = counts // per_second
    earliest = 1 if is_timestamp or time.unit == "s" else _EARLIEST
    valid = (seconds >= earliest) & (seconds < LATEST_TIME)
    if not valid.all():
        hint = ""
        if not is_timestamp:
            hint = f" in {TIME_UNITS[time.unit][0]}" + _hint(
                float(column[int(np.argmin(valid))].as_py())
            )
        rows.require(
            valid, f"`{name}` is not a time from 1970 to 2100{hint}", name
        )
    return seconds, counts * (10**9 // per_second)


def _times_of_texts(rows: RawRows, name: str) -> pa.ChunkedArray:
    """Returns a column; of texts the numbers or times that they are.

    Dates and times are those of ISO 8601, with an offset from UTC or without.

    Raises:
        InputError: If one is none, or of another form than the first.
    """
    column = rows.table[name]
    if not is_text(column.type):
        return column
    texts = cast(rows, name, pa.string())
    for kind in _TIME_TYPES:
        if _is_a(texts, kind):
            return texts.cast(kind)
    first = texts.drop_null().slice(0, 1)
    for kind in _TIME_TYPES:
        if _is_a(first, kind):
            break
    good = [t for t in pc.unique(texts).drop_null() if _is_a(t, kind)]
    valid = pc.is_in(texts, value_set=pa.array(good, pa.string()))
    rows.require(
        pc.or_(valid, texts.is_null()),
        f"`{name}` is neither whole numbers nor dates such as 2026-03-01 "
        "12:30:00, all of one form, with an offset such as +01:00 or without",
        name,
    )
    return texts


def _is_a(texts: pa.ChunkedArray | pa.Scalar, kind: pa.DataType) -> bool:
    try:
        texts.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


_TIME_TYPES = (
    pa.int64(),
    pa.float64(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
)


def _hint(value: float) -> str:
    """Returns in which unit a time would be one."""
    for unit, (words, per_second) in TIME_UNITS.items():
        seconds = value / per_second
        if _EARLIEST <= seconds < LATEST_TIME:
            day = _UNIX_EPOCH + datetime.timedelta(seconds=seconds)
            return (
                f"; in {words} it would be {day:%Y-%m-%d} "
                f'(time_unit = "{unit}")'
            )
    return ""
