"""Parquet files to arrow tables, with errors that name file and row."""

import dataclasses
import functools
from collections.abc import Generator, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.raw.casting import cast, is_text
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError

_BLOCK_ROWS = 1 << 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Reads ranges of row groups of Parquet files in blocks of rows.

    A column is read as an integer if it holds integers, booleans, or decimals
    and floats that are whole; as a float if it holds numbers; as text if it
    holds text or bytes of UTF-8. Dictionaries are read as their values, and
    NaN is missing. Dates, times and nested columns are no numbers.

    Args:
        columns: Arrow type of every column to read, `None` for the file's
            own; others are skipped.
        required: Columns that may not have a missing value.
    """

    columns: Mapping[str, pa.DataType | None]
    required: tuple[str, ...] = ()

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""
        found = pa.schema([])
        if None in self.columns.values():
            found = _open(source).schema_arrow
            self._check_columns(source, found)
        return pa.schema(
            [
                (name, found.field(name).type if kind is None else kind)
                for name, kind in self.columns.items()
            ]
        )

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges of row groups of about `range_bytes`.

        Raises:
            InputError: If the file is no Parquet file, or lacks a column or
                has one of another type.
        """
        file = _open(source)
        metadata = file.metadata
        self._check_columns(source, file.schema_arrow)
        starts = [0]
        size = 0
        for group in range(metadata.num_row_groups):
            if size >= range_bytes:
                starts.append(group)
                size = 0
            size += metadata.row_group(group).total_byte_size
        ends = [*starts[1:], metadata.num_row_groups]
        return list(zip(starts, ends, strict=True))

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows of a range of row groups, in their order.

        Args:
            source: The file.
            start: First row group.
            end: One past the last; `None` for all that follow.

        Raises:
            InputError: If a value cannot be read as its type, is not finite,
                or is required and missing.
        """
        file = _open(source)
        self._check_columns(source, file.schema_arrow)
        groups = range(file.metadata.num_row_groups)[start:end]
        row = _first_row(file, start)
        batches = file.iter_batches(
            _BLOCK_ROWS, row_groups=list(groups), columns=list(self.columns)
        )
        while (batch := _next(batches, source)) is not None:
            where = functools.partial(self.where, source, start)
            rows = RawRows(pa.Table.from_batches([batch]), row, where)
            for name, column_type in self.columns.items():
                if column_type is not None:
                    place = rows.table.column_names.index(name)
                    column = cast(rows, name, column_type)
                    rows.table = rows.table.set_column(place, name, column)
            for name in self.required:
                column = rows.table[name]
                if column.null_count:
                    rows.require(pc.is_valid(column), f"`{name}` is missing")
            row += len(batch)
            yield rows

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Returns file and row (the first is 1) of a row number."""
        del start  # Rows are numbered through the whole file.
        return f"{source.path}, row {row + 1}"

    def _check_columns(self, source: SourceFile, schema: pa.Schema) -> None:
        names = schema.names
        for name, column_type in self.columns.items():
            if names.count(name) > 1:
                raise InputError(
                    f"{source.path} has {names.count(name)} columns {name!r}."
                )
            if name not in names:
                raise InputError(
                    f"{source.path} has no column {name!r}. "
                    f"It has {', '.join(names)}."
                )
            found = schema.field(name).type
            if column_type is not None and not _fits(found, column_type):
                raise InputError(
                    f"{source.path}: column {name!r} of type {found} cannot "
                    f"be read as {column_type}."
                )


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type can be meant as those of another."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if found == wanted or pa.types.is_null(found):
        return True
    if pa.types.is_integer(wanted) or pa.types.is_floating(wanted):
        return any(
            check(found)
            for check in (
                pa.types.is_integer,
                pa.types.is_floating,
                pa.types.is_decimal,
                pa.types.is_boolean,
            )
        )
    return pa.types.is_string(wanted) and is_text(found)


def _open(source: SourceFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            source.path, memory_map=True, page_checksum_verification=True
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{source.path} is not a Parquet file: "
            f"{' '.join(str(error).split())}"
        ) from error


def _next(
    batches: Iterator[pa.RecordBatch], source: SourceFile
) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{source.path} is damaged: {' '.join(str(error).split())}"
        ) from error


def _first_row(file: pq.ParquetFile, group: int) -> int:
    return sum(file.metadata.row_group(i).num_rows for i in range(group))
