"""Requests in Parquet files, one a row, in the layout of docs/requests.md."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.requests.padding import BEHAVIOR_TIME, REQUEST_TIME, Request
from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
)
from data_pipelines.requests.tensor_type import Array, TensorType
from sparsectr.errors import InputError, did_you_mean

PAGE = "docs/requests.md"
"""Says what a table holds; errors point to it."""

_TIMES = (BEHAVIOR_TIME, REQUEST_TIME)

_READ_BYTES = 1 << 20
"""Of a column, at a time: a row group may be as large as the file."""


class RequestTable:
    """A Parquet file of requests, read in parts.

    Args:
        path: The file.
        inputs: The inputs that a request has.

    Attributes:
        schema: Its columns.
        num_requests: Its rows.
        num_values: The entries of all its lists and plain columns together.

    Raises:
        InputError: If it is no Parquet file, lacks the column of an input, or
            has it with another type.
        OSError: If it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        inputs: Mapping[str, TensorType],
    ) -> None:
        self.path = path
        self._inputs = dict(inputs)
        try:
            with pq.ParquetFile(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                metadata = file.metadata
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{path} is not a Parquet file: {error}"
            ) from error
        self.num_requests: int = metadata.num_rows
        self.num_values = sum(
            metadata.row_group(group).column(column).num_values
            for group in range(metadata.num_row_groups)
            for column in range(metadata.num_columns)
        )
        for name, type_ in self._inputs.items():
            _check_column(self.schema, name, type_, str(path))

    def batches(
        self, size: int
    ) -> Iterator[tuple[pa.RecordBatch, list[dict[str, Array]]]]:
        """Yields the rows of the file with the requests they hold.

        Args:
            size: Most rows at a time.

        Raises:
            InputError: If a value is not of its input's type, or a time is
                missing.
        """
        with pq.ParquetFile(self.path, buffer_size=_READ_BYTES) as file:
            batches = file.iter_batches(batch_size=size)
            first_row = 0
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(f"{self.path}: {error}") from error
                if batch is None:
                    return
                columns = {
                    name: self._values(
                        batch.column(name), name, type_, first_row
                    )
                    for name, type_ in self._inputs.items()
                }
                yield (
                    batch,
                    [
                        {name: values[row] for name, values in columns.items()}
                        for row in range(batch.num_rows)
                    ],
                )
                first_row += batch.num_rows

    def _values(
        self, column: pa.Array, name: str, type_: TensorType, first_row: int
    ) -> Array | list[Array]:
        """Returns one scalar or array for each row."""
        if _has_nothing(column.type):
            column = column.cast(_arrow_type(type_))
        levels = [column]
        while len(levels) < len(type_.shape):
            # This leaves out what may lie behind an absent list.
            levels.append(levels[-1].flatten())
        values = levels.pop()
        problem, is_bad = _problem(values, name, type_.dtype)
        if problem:
            row = is_bad.index(True).as_py()
            for lists in reversed(levels):
                row = pc.list_parent_indices(lists)[row].as_py()
            row += first_row
            raise InputError(f"{self.path}, row {row}: `{name}` {problem}")
        numpy = _to_numpy(values, type_.dtype)
        if type_.set_size is not None:
            numpy = _sets(levels.pop(), numpy, type_)
        if not levels:
            return numpy
        ends = np.cumsum(_lengths(column))
        return np.split(numpy, ends[:-1])


def _sets(lists: pa.Array, values: Array, type_: TensorType) -> Array:
    """Returns sets of values, each padded or cut to the size of its type."""
    size, counts = type_.set_size or 0, _lengths(lists)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    kept = place < size
    missing = MISSING_TEXT if type_.dtype == "string" else MISSING_INTEGER
    padded = np.full((len(counts), size), missing, values.dtype)
    padded[row[kept], place[kept]] = values[kept]
    return padded


def _lengths(lists: pa.Array) -> Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    found: Array = lengths.to_numpy().astype(np.int64)
    return found


def _problem(
    values: pa.Array, name: str, dtype: str
) -> tuple[str | None, pa.Array]:
    """Returns what is wrong with a column, if anything, and which values."""
    if values.null_count and name in _TIMES:
        return "has a null; a time cannot be missing.", values.is_null()
    if dtype == "int64" and pa.types.is_uint64(values.type):
        is_large = pc.fill_null(
            pc.greater(values, pa.scalar(_LARGEST, pa.uint64())), False
        )
        if pc.any(is_large).as_py():
            return f"has an integer above {_LARGEST}.", is_large
    if dtype == "float32" and not pa.types.is_null(values.type):
        size = pc.abs(values.cast(pa.float64(), safe=False))
        is_large = pc.fill_null(pc.greater(size, _LARGEST_NUMBER), False)
        if pc.any(is_large).as_py():
            return (
                f"has a number above {_LARGEST_NUMBER:.3g} or below its "
                "negative; one that is missing is null or NaN.",
                is_large,
            )
    return None, values


def _to_numpy(values: pa.Array, dtype: str) -> Array:
    if dtype == "string":
        missing = pa.scalar(MISSING_TEXT).cast(values.type)
        return values.fill_null(missing).to_numpy(zero_copy_only=False)
    if dtype == "float32":
        numbers = values.cast(pa.float64(), safe=False).fill_null(np.nan)
        with np.errstate(over="ignore"):
            return numbers.to_numpy().astype(np.float32)
    return values.cast(pa.int64()).fill_null(MISSING_INTEGER).to_numpy()


def request_tables(
    path: Path, inputs: Mapping[str, TensorType]
) -> list[RequestTable]:
    """Returns the tables of a file, or of a folder's files by name.

    Files of a folder whose names begin with `.` or `_` are left out, as
    Spark's own marks are.

    Args:
        path: A file, or a folder with files that end in `.parquet`.
        inputs: The inputs that a request has.

    Raises:
        InputError: If there is none, one is not such a table, or two differ
            in a column, since their rows become one table.
        OSError: If one cannot be read.
    """
    files = [path]
    if path.is_dir():
        found = sorted(path.glob("*.parquet"))
        files = [file for file in found if file.name[0] not in "._"]
    if not files:
        raise InputError(f"{path} has no file that ends in .parquet.")
    tables = [RequestTable(file, inputs) for file in files]
    for table in tables[1:]:
        _check_same_columns(tables[0], table)
    return tables


def _check_same_columns(first: RequestTable, other: RequestTable) -> None:
    if first.schema.equals(other.schema):
        return
    names = dict.fromkeys([*first.schema.names, *other.schema.names])
    types = {
        name: [
            table.schema.field(name).type if name in table.schema.names else "-"
            for table in (first, other)
        ]
        for name in names
    }
    differing = [f"`{n}` ({a}, {b})" for n, (a, b) in types.items() if a != b]
    what = ", ".join(differing) or "the order of columns, or in who has nulls"
    raise InputError(
        f"{first.path} and {other.path} differ in {what}; files of one folder "
        "have the same columns."
    )


def write_requests(
    path: Path, requests: Sequence[Request], inputs: Mapping[str, TensorType]
) -> None:
    """Writes requests to a Parquet file that `RequestTable` reads.

    Args:
        path: The file, replaced if it exists.
        requests: Any number of them.
        inputs: The inputs that a request has.
    """
    columns = {}
    for name, type_ in inputs.items():
        arrow_type = _arrow_type(type_)
        values = [np.asarray(request[name]).tolist() for request in requests]
        columns[name] = pa.array(values, arrow_type)
    pq.write_table(pa.table(columns), path)


def _check_column(
    schema: pa.Schema, name: str, type_: TensorType, where: str
) -> None:
    if type_.dtype not in _IS_OF_TYPE:
        raise InputError(
            f"The model takes `{name}` as {type_.dtype}; tables are for "
            f"{', '.join(_IS_OF_TYPE)}."
        )
    if name not in schema.names:
        raise InputError(
            f"{where} has no column `{name}`, {_expected(type_)}; {PAGE} says "
            "what such a table holds." + did_you_mean(name, schema.names)
        )
    found = element = schema.field(name).type
    depth = 0
    while depth < len(type_.shape) and _is_list(element):
        element, depth = element.value_type, depth + 1
    if pa.types.is_null(element) and depth < len(type_.shape):
        return  # nothing but missing values, and no type for them
    if depth + 1 != len(type_.shape) or not _IS_OF_TYPE[type_.dtype](element):
        raise InputError(
            f"{where}: column `{name}` must be {_expected(type_)}. Received: "
            f"{found}. {PAGE} says what such a table holds."
        )


def _has_nothing(type_: pa.DataType) -> bool:
    """Whether a column has no type for values, since it has none."""
    while _is_list(type_):
        type_ = type_.value_type
    return bool(pa.types.is_null(type_))


def _arrow_type(type_: TensorType) -> pa.DataType:
    arrow_type = _ARROW_TYPES[type_.dtype]
    for _ in type_.shape[1:]:
        arrow_type = pa.list_(arrow_type)
    return arrow_type


def _expected(type_: TensorType) -> str:
    return "lists of " * (len(type_.shape) - 1) + _NAMES[type_.dtype]


def _is_list(type_: pa.DataType) -> bool:
    return (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_text_or_bytes(type_: pa.DataType) -> bool:
    return (
        _is_text(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
    )


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


_LARGEST = 2**63 - 1
_LARGEST_NUMBER = float(np.finfo(np.float32).max)
_ARROW_TYPES = {
    "float32": pa.float32(),
    "int64": pa.int64(),
    "string": pa.string(),
}
_IS_OF_TYPE = {
    "float32": _is_number,
    "int64": pa.types.is_integer,
    "string": _is_text_or_bytes,
}
_NAMES = {"float32": "numbers", "int64": "integers", "string": "texts"}
