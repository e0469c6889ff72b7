"""A raw table: its files, how they are read, and what their rows become."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Protocol

import pyarrow as pa

from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.source_file import SourceFile

_FILE_SHIFT = 48
"""Rows of later files have higher numbers; a file has less than 2^48 bytes."""


def keep(rows: RawRows) -> None:
    """Leaves rows as they are: the conversion of a table that needs none."""


class Reader(Protocol):
    """Reads parts of files: `CsvReader` or `ParquetReader`."""

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges that can be read by themselves, in order."""

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows of one of them, numbered from at least `start`."""

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Tells where a row of the range that begins at `start` stands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a raw table that is read by itself.

    Args:
        file: Which file.
        start: First byte or row group.
        end: One past the last; `None` for the end of the file.
    """

    file: int
    start: int
    end: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawTable:
    """Rows of one kind, from one or several files.

    Args:
        name: What the rows are: "impressions", for example.
        sources: The files, in the order of their rows.
        reader: How a file is read.
        convert: Checks the rows of a block and gives them their final
            columns. A function of a module, since other processes call it.
    """

    name: str
    sources: tuple[SourceFile, ...]
    reader: Reader
    convert: Callable[[RawRows], None]

    def splits(self, range_bytes: int) -> list[Split]:
        """Returns parts of about `range_bytes` each.

        Raises:
            InputError: If a file lacks a column.
        """
        return [
            Split(file=index, start=start, end=end)
            for index, source in enumerate(self.sources)
            for start, end in self.reader.ranges(source, range_bytes)
        ]

    def read(self, split: Split) -> Generator[RawRows]:
        """Yields the converted rows of a part.

        Their numbers ascend in the order of the files and of their lines.

        Raises:
            InputError: If a row is not as documented.
        """
        source = self.sources[split.file]
        read = self.reader.read(source, split.start, split.end)
        # Or a part that is refused would be read ahead until the process ends.
        with contextlib.closing(read) as parts:
            for rows in parts:
                self.convert(rows)
                rows.row += split.file << _FILE_SHIFT
                yield rows

    def read_all(self, range_bytes: int = 1 << 30) -> pa.Table:
        """Returns all rows; for tables that are known to be small."""
        return pa.concat_tables(
            [
                rows.table
                for split in self.splits(range_bytes)
                for rows in self.read(split)
            ]
            or [self.empty]
        )

    @property
    def empty(self) -> pa.Table:
        """A table of the final columns without rows."""
        schema = self.reader.schema(self.sources[0])
        rows = RawRows(schema.empty_table(), 0, str)
        self.convert(rows)
        return rows.table

    def where(self, row: int, range_bytes: int) -> str:
        """Tells where the row with a number stands."""
        file, number = row >> _FILE_SHIFT, row & ((1 << _FILE_SHIFT) - 1)
        source = self.sources[file]
        starts = [start for start, _ in self.reader.ranges(source, range_bytes)]
        start = max(start for start in starts if start <= number)
        return self.reader.where(source, start, number)
