"""Requests in a Parquet file, one a row.

Columns have the names of the inputs. `user_<field>` and `request_time` are
plain columns, `behavior_<field>`, `behavior_time` and `candidate_<field>`
lists, oldest behavior first and not padded. A null is a missing value, and an
absent list an empty one; times cannot be missing. Other columns are kept for
the output and not looked at. Scores are one more column, `probability`: lists
with one entry a candidate.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.requests.padding import BEHAVIOR_TIME, REQUEST_TIME, Request
from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
    PROBABILITY,
)
from data_pipelines.requests.tensor_type import Array, TensorType
from sparsectr.errors import InputError

_TIMES = (BEHAVIOR_TIME, REQUEST_TIME)


class RequestTable:
    """A Parquet file of requests, read in parts.

    Args:
        path: The file.
        inputs: The inputs that a request has.

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
            self._file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{path} is not a Parquet file: {error}"
            ) from error
        self.schema: pa.Schema = self._file.schema_arrow
        self.num_requests: int = self._file.metadata.num_rows
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
        batches = self._file.iter_batches(batch_size=size)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{self.path}: {error}") from error
            if batch is None:
                return
            columns = {
                name: self._values(batch.column(name), name, type_)
                for name, type_ in self._inputs.items()
            }
            yield (
                batch,
                [
                    {name: values[row] for name, values in columns.items()}
                    for row in range(batch.num_rows)
                ],
            )

    def _values(
        self, column: pa.Array, name: str, type_: TensorType
    ) -> Array | list[Array]:
        """Returns one scalar or array for each row."""
        if len(type_.shape) == 1:
            return self._to_numpy(column, name, type_.dtype)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        # This leaves out what may lie behind an absent list.
        values = self._to_numpy(column.flatten(), name, type_.dtype)
        return np.split(values, np.cumsum(lengths)[:-1])

    def _to_numpy(self, values: pa.Array, name: str, dtype: str) -> Array:
        if values.null_count and name in _TIMES:
            raise InputError(f"{self.path}: `{name}` has a null.")
        if dtype == "string":
            missing = pa.scalar(MISSING_TEXT).cast(values.type)
            return values.fill_null(missing).to_numpy(zero_copy_only=False)
        if dtype == "float32":
            numbers = values.cast(pa.float64(), safe=False).fill_null(np.nan)
            with np.errstate(over="ignore"):
                return numbers.to_numpy().astype(np.float32)
        try:
            integers = values.cast(pa.int64()).fill_null(MISSING_INTEGER)
            return integers.to_numpy()
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}: `{name}`: {error}") from error


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
        arrow_type = _ARROW_TYPES[type_.dtype]
        if len(type_.shape) == 2:
            arrow_type = pa.list_(arrow_type)
        values = [np.asarray(request[name]).tolist() for request in requests]
        columns[name] = pa.array(values, arrow_type)
    pq.write_table(pa.table(columns), path)


@contextlib.contextmanager
def score_writer(
    path: Path, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch, Sequence[Array]], None]]:
    """Yields what writes rows with their scores to a new file.

    The file has its name only when all is written.

    Args:
        path: The file, replaced if it exists.
        schema: Columns of the rows.

    Raises:
        InputError: If there cannot be such a file, or the rows have a column
            of that name already.
        OSError: If the disk is full or not writable.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")
    if PROBABILITY in schema.names:
        raise InputError(f"The requests have a column `{PROBABILITY}` already.")
    schema = schema.append(pa.field(PROBABILITY, pa.list_(pa.float32())))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with pq.ParquetWriter(partial, schema) as writer:

            def write(rows: pa.RecordBatch, scores: Sequence[Array]) -> None:
                offsets = np.cumsum([0, *map(len, scores)], dtype=np.int32)
                values = np.concatenate([*scores, np.zeros(0, np.float32)])
                column = pa.ListArray.from_arrays(offsets, values)
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [*rows.columns, column], schema=schema
                    )
                )

            yield write
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_column(
    schema: pa.Schema, name: str, type_: TensorType, where: str
) -> None:
    if type_.dtype not in _IS_OF_TYPE:
        raise InputError(
            f"The model takes `{name}` as {type_.dtype}; tables are for "
            f"{', '.join(_IS_OF_TYPE)}."
        )
    if name not in schema.names:
        raise InputError(f"{where} has no column `{name}`.")
    found = element = schema.field(name).type
    is_list = len(type_.shape) == 2
    if is_list and _is_list(found):
        element = found.value_type
    if is_list != _is_list(found) or not _IS_OF_TYPE[type_.dtype](element):
        what = _NAMES[type_.dtype]
        raise InputError(
            f"{where}: column `{name}` must be "
            f"{f'lists of {what}' if is_list else what}. Received: {found}"
        )


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
