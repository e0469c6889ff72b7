"""Rows of EB-NeRD's files to the columns that a raw table has."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.casting import cast
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import Reader
from data_pipelines.raw.set_column import set_column
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError
from sparsectr.schema import LATEST_TIME

Integers = npt.NDArray[np.int64]

PROFILE_COLUMNS = dict.fromkeys(
    (
        "device_type",
        "is_sso_user",
        "is_subscriber",
        "gender",
        "postcode",
        "age",
    ),
    pa.int64(),
)
"""Columns of an impression that are fields of its request."""

ARTICLE_COLUMNS = {
    "category": pa.int64(),
    "article_type": pa.string(),
    "premium": pa.int64(),
}
"""Columns of an article that are fields, each one value."""

SUBCATEGORY = "subcategory"

READER = "reader_id"
"""Who reads, whichever folder it is in."""

_MOST_USERS = 1 << 32

NUMBERS = ("read_time", "scroll_percentage")
"""Numbers of a behavior: seconds, and 0 to 100."""

_SHOWN, _CLICKED, _TIME = (
    "article_ids_inview",
    "article_ids_clicked",
    "impression_time",
)
_READ, _READ_TIME = "article_id_fixed", "impression_time_fixed"

_IMPRESSIONS = ParquetReader(
    columns={
        "impression_id": pa.int64(),
        "user_id": pa.int64(),
        "article_id": pa.int64(),
        **PROFILE_COLUMNS,
        **dict.fromkeys((_SHOWN, _CLICKED, _TIME)),
    },
    required=("impression_id", "user_id"),
)
_CLICKS = ParquetReader(
    columns={"user_id": pa.int64(), **dict.fromkeys((_CLICKED, _TIME))},
    required=("user_id",),
)
_HISTORY = ParquetReader(
    columns={
        "user_id": pa.int64(),
        **dict.fromkeys((_READ, _READ_TIME)),
        **dict.fromkeys(f"{name}_fixed" for name in NUMBERS),
    },
    required=("user_id",),
)

IMPRESSION_READERS = {"behaviors.parquet": _IMPRESSIONS}
BEHAVIOR_READERS = {"history.parquet": _HISTORY, "behaviors.parquet": _CLICKS}

_Types = tuple[Callable[[pa.DataType], bool], ...]
_WHOLE: _Types = (pa.types.is_integer, pa.types.is_null)
_NUMBER: _Types = (*_WHOLE, pa.types.is_floating)
_MOMENT: _Types = (pa.types.is_timestamp,)
_WORDS = {_WHOLE: "ids", _NUMBER: "numbers", _MOMENT: "timestamps"}
_EXPECTED = {_TIME: _MOMENT}
_LISTS = {
    **dict.fromkeys((_SHOWN, _CLICKED, _READ, SUBCATEGORY), _WHOLE),
    **dict.fromkeys((f"{name}_fixed" for name in NUMBERS), _NUMBER),
    _READ_TIME: _MOMENT,
}

_POSITION_BITS = 16
"""Rows are numbered by the row of their file and their place in its list."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderReader:
    """Reads files with a column `reader_id` beside `user_id`.

    They are equal but in `validation`, where `user_id` is larger by 2^32 if
    the same people are to be other users there.

    Args:
        readers: A reader for each name of a file.
        has_first: Whether there is `train` too.
    """

    readers: Mapping[str, ParquetReader]
    has_first: bool

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""
        found = self.readers[source.path.name].schema(source)
        return found.append(pa.field(READER, pa.int64()))

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges that can be read by themselves, in order."""
        return self.readers[source.path.name].ranges(source, range_bytes)

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows of one of them."""
        is_apart = self.has_first and source.path.parent.name == "validation"
        reader = self.readers[source.path.name]
        with contextlib.closing(reader.read(source, start, end)) as parts:
            for rows in parts:
                _tell_apart(rows, is_apart)
                yield rows

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Tells where a row stands."""
        return self.readers[source.path.name].where(source, start, row)


def _tell_apart(rows: RawRows, is_apart: bool) -> None:
    reader = rows.table["user_id"]
    rows.require(
        pc.and_(pc.greater_equal(reader, 0), pc.less(reader, _MOST_USERS)),
        "`user_id` is no id from 0 to 2^32",
        "user_id",
    )
    user = pc.add(reader, _MOST_USERS) if is_apart else reader
    place = rows.table.column_names.index("user_id")
    rows.table = rows.table.set_column(place, "user_id", user).append_column(
        READER, reader
    )


def convert_impressions(rows: RawRows) -> None:
    """Makes one row of each article in view.

    Raises:
        InputError: If a value is not as published.
    """
    rows.drop_unless(
        _counts(rows, _SHOWN) > 0, "impressions without an article in view"
    )
    time = _seconds(rows, _TIME)
    shown, parent = _articles(rows, _SHOWN)
    clicked, click_parent = _articles(rows, _CLICKED)
    # Of a block of less than 2^31 rows.
    label = np.isin((parent << 32) | shown, (click_parent << 32) | clicked)
    table = rows.table.select(["impression_id", "user_id", "article_id"])
    table = table.rename_columns(["request", "user_id", "page"])
    for name in (READER, *PROFILE_COLUMNS):
        table = table.append_column(name, rows.table[name])
    rows.row = _numbers(rows, parent)
    rows.table = (
        table.take(pa.array(parent))
        .append_column("time", pa.array(time[parent]))
        .append_column("article", pa.array(shown))
        .append_column("label", pa.array(label.astype(np.int64)))
    )


def convert_behaviors(rows: RawRows) -> None:
    """Makes one row of each article that was read, or clicked.

    Raises:
        InputError: If a value is not as published.
    """
    if _READ in rows.table.column_names:
        _convert_history(rows)
        return
    article, parent = _articles(rows, _CLICKED)
    time = _seconds(rows, _TIME)[parent]
    unknown = pa.nulls(len(parent), pa.float32())
    _set_behaviors(rows, parent, article, time, dict.fromkeys(NUMBERS, unknown))


def _convert_history(rows: RawRows) -> None:
    article, parent = _articles(rows, _READ)
    time = _seconds(_entries(rows, _READ_TIME, parent), _READ_TIME)
    numbers = {
        name: cast(
            _entries(rows, f"{name}_fixed", parent),
            f"{name}_fixed",
            pa.float32(),
        )
        for name in NUMBERS
    }
    _set_behaviors(rows, parent, article, time, numbers)


def _set_behaviors(
    rows: RawRows,
    parent: Integers,
    article: Integers,
    time: Integers,
    numbers: dict[str, pa.Array | pa.ChunkedArray],
) -> None:
    user = rows.table["user_id"].take(pa.array(parent))
    rows.row = _numbers(rows, parent)
    rows.table = pa.table(
        {"user_id": user, "time": time, "article": article, **numbers}
    )


def convert_articles(rows: RawRows) -> None:
    """Makes a set of the subcategories.

    Raises:
        InputError: If one is no whole number.
    """
    table = rows.table
    rows.table = pa.table(
        {
            "article": table["article_id"],
            **{name: table[name] for name in ARTICLE_COLUMNS},
            SUBCATEGORY: set_column(rows, SUBCATEGORY, pa.int64()),
        }
    )


def check_types(reader: Reader, sources: Sequence[SourceFile]) -> None:
    """Checks the columns whose type the readers leave open.

    Raises:
        InputError: If one holds something else.
    """
    for source in sources:
        for field in reader.schema(source):
            found, expected = field.type, _EXPECTED.get(field.name)
            if field.name in _LISTS:
                expected = _LISTS[field.name]
                is_list = pa.types.is_list(found) or pa.types.is_large_list(
                    found
                )
                found = found.value_type if is_list else None
            if expected is None or pa.types.is_null(field.type):
                continue
            if found is None or not any(test(found) for test in expected):
                words = _WORDS[expected]
                if field.name in _LISTS:
                    words = f"lists of {words}"
                raise InputError(
                    f"{source.path}: column {field.name!r} of type "
                    f"{field.type} cannot be read as {words}."
                )


def _counts(rows: RawRows, name: str) -> Integers:
    """Returns how many values each list of a column has."""
    column = rows.table[name]
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    found: Integers = lengths.astype(np.int64)
    rows.require(
        found < 1 << _POSITION_BITS,
        f"`{name}` has less than {1 << _POSITION_BITS:,} entries",
    )
    return found


def _articles(rows: RawRows, name: str) -> tuple[Integers, Integers]:
    """Returns the ids in lists, and for each the row that it is in."""
    counts = _counts(rows, name)
    parent = np.repeat(np.arange(len(counts)), counts)
    entries = rows.of(name, _flat(rows, name), parent)
    ids = cast(entries, name, pa.int64())
    entries.require(
        pc.and_(pc.greater_equal(ids, 0), pc.less(ids, 1 << 31)),
        f"`{name}` has an entry that is no id from 0 to 2^31",
        name,
    )
    values: Integers = ids.to_numpy()
    return values, parent


def _entries(rows: RawRows, name: str, parent: Integers) -> RawRows:
    """Returns the values of lists that are as long as those of `parent`."""
    rows.require(
        _counts(rows, name) == np.bincount(parent, minlength=len(rows.table)),
        f"the lists `{_READ}` and `{name}` differ in length",
    )
    return rows.of(name, _flat(rows, name), parent)


def _flat(rows: RawRows, name: str) -> pa.Array:
    column = rows.table[name]
    if pa.types.is_null(column.type):
        return pa.nulls(0)
    return column.combine_chunks().flatten()


def _numbers(rows: RawRows, parent: Integers) -> Integers:
    """Returns the number of each entry, in the order of the file."""
    counts = np.bincount(parent, minlength=len(rows.row))
    place = np.arange(len(parent)) - (np.cumsum(counts) - counts)[parent]
    numbers: Integers = (rows.row[parent] << _POSITION_BITS) | place
    return numbers


def _seconds(rows: RawRows, name: str) -> Integers:
    """Returns times as Unix seconds; those without a time zone are UTC."""
    times = rows.table[name]
    rows.require(times.is_valid(), f"`{name}` is missing")
    whole = times.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    seconds: Integers = whole.to_numpy()
    rows.require(
        (seconds > 0) & (seconds < LATEST_TIME),
        f"`{name}` is not a time from 1970 to 2100",
        name,
    )
    return seconds
