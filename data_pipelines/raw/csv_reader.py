"""Delimited text to arrow tables, with errors that name file and line."""

import csv
import dataclasses
import functools
import io
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.source_file import (
    BYTE_ORDER_MARK,
    SourceFile,
    SourceStream,
)
from sparsectr.errors import InputError

# What arrow takes for numbers, but 0x1F.
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?"
    r"|[+-]?(inf|infinity|nan(\(.*\))?)",
    re.IGNORECASE,
)
_INT64_LIMIT = 1 << 63
_ESCAPED = re.compile("[\udc80-\udcff]")
"""Bytes that are no text, as Python's surrogateescape decodes them."""

_MARK_FAULT = "a byte order mark within the file"
_SHORT_DELIMITER = "\x1f"
"""Stands in for a delimiter of several characters."""
_SHORT_FAULT = "a control character U+001F"

_BLOCK_BYTES = 8 << 20
"""Text that becomes one block of rows: a line cannot be longer."""

_NOT_LINES = "rows are not lines"
_HEADER_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvFormat:
    """How the text of a file is laid out.

    Args:
        delimiter: What stands between two values.
        column_names: Names of the columns of a file without a header line.
        null_values: Texts that mean "missing".
        encoding: Encoding of the text.
        quoted: Whether values may stand in double quotes.
    """

    delimiter: str = ","
    column_names: tuple[str, ...] | None = None
    null_values: tuple[str, ...] = ("",)
    encoding: str = "utf-8"
    quoted: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvReader:
    """Reads ranges of delimited text files in blocks of rows.

    A row is a line: a value cannot hold a line end, so that a file can be
    read in ranges of bytes by several processes. Blanks around numbers are
    no part of them; a blank line has no value in any column.

    Args:
        columns: Arrow type of every column to read; others are skipped.
        required: Columns that may not have a missing value.
        file_format: How the text is laid out.
    """

    columns: Mapping[str, pa.DataType]
    required: tuple[str, ...] = ()
    file_format: CsvFormat = CsvFormat()

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""
        del source  # All files have the same.
        return pa.schema(list(self.columns.items()))

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges of bytes that can be read by themselves.

        Raises:
            InputError: If the header lacks a column.
        """
        with source.open() as stream:
            self._header(source, io.BufferedReader(stream, 1 << 16))
        if source.is_packed:
            return [(0, None)]
        starts = range(0, max(source.size, 1), range_bytes)
        return [(start, start + range_bytes) for start in starts[:-1]] + [
            (starts[-1], None)
        ]

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows whose lines begin in a range, in their order.

        Args:
            source: The file.
            start: First byte of the range.
            end: One past the last; `None` for the end of the file.

        Raises:
            InputError: If a row is not what `columns` asks for, or the last
                line of the file is cut off.
        """
        names = self.names(source) if start else None
        with source.open(start, end) as stream:
            file = io.BufferedReader(stream, 1 << 20)
            if names is None:
                names = self._header(source, file)
            has_header = int(self._has_header and not start)
            num_rows = 0
            where = functools.partial(self.where, source, start)
            if file.peek(3).startswith(BYTE_ORDER_MARK):
                # Arrow would skip it, but not in the midst of a range.
                raise InputError(f"{where(start)}: {_MARK_FAULT}.")
            try:
                text = self._text(file)
                with closing(self._parse(stream, text, names)) as batches:
                    for batch in batches:
                        if stream.num_bad_bytes:
                            # A carriage return ends a row of arrow's.
                            raise self._locate(source, start, end, _NOT_LINES)
                        rows = RawRows(
                            pa.Table.from_batches([batch]),
                            start + num_rows,
                            where,
                        )
                        self._check(rows)
                        num_rows += len(batch)
                        yield rows
            except pa.ArrowInvalid as error:
                raise self._locate(source, start, end, str(error)) from error
            if stream.last_line and not stream.last_line.endswith(b"\n"):
                last = start + max(num_rows - 1, -has_header)
                raise InputError(
                    f"{where(last)}: the last line has no line end, so the "
                    "file looks cut off."
                )
            # To arrow a quote that is not closed holds the lines that follow.
            if (
                num_rows + has_header != stream.num_line_ends
                or stream.num_bad_bytes
                or (num_rows and self._fault(stream.last_line, names))
            ):
                raise self._locate(source, start, end, _NOT_LINES)
            if stream.has_hexadecimal:  # which to arrow is a whole number
                fault = self._first_fault(source, start, end)
                if fault is not None:
                    raise fault

    @property
    def _has_header(self) -> bool:
        return self.file_format.column_names is None

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Returns file and line of a row of the range that begins at `start`.

        Counts the lines before the range, and so takes a while.
        """
        before = source.num_lines_before(start)
        if not start and self._has_header:
            before = 1
        return f"{source.path}, line {before + row - start + 1}"

    def _check(self, rows: RawRows) -> None:
        for name, column_type in self.columns.items():
            if pa.types.is_floating(column_type):
                column = rows.table[name]
                rows.require(
                    pc.or_kleene(pc.is_null(column), pc.is_finite(column)),
                    f"`{name}` is not finite",
                    name,
                )
        for name in self.required:
            column = rows.table[name]
            if column.null_count:
                rows.require(pc.is_valid(column), f"`{name}` is missing", name)

    def _parse(
        self, stream: SourceStream, text: IO[bytes], names: list[str]
    ) -> Generator[pa.RecordBatch]:
        batches: Iterable[pa.RecordBatch] = ()
        try:
            batches = pyarrow.csv.open_csv(
                text,
                pyarrow.csv.ReadOptions(
                    column_names=names,
                    encoding=self.file_format.encoding,
                    block_size=_BLOCK_BYTES,
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter,
                    quote_char='"' if self.file_format.quoted else False,
                    ignore_empty_lines=False,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict(self.columns),
                    include_columns=list(self.columns),
                    null_values=list(self.file_format.null_values),
                    strings_can_be_null=True,
                ),
            )
            yield from batches
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise
        finally:
            # Arrow reads ahead in a thread of its own. A process that ends
            # while that waits for Python hangs or aborts.
            stream.stop()
            with suppress(pa.ArrowInvalid):
                for _ in batches:
                    pass

    def _text(self, file: IO[bytes]) -> IO[bytes]:
        if len(self.file_format.delimiter) == 1:
            return file
        # Arrow knows delimiters of one character alone, and such files
        # (MovieLens) are small enough to be replaced in memory.
        text = file.read()
        if _SHORT_DELIMITER.encode() in text:
            raise pa.ArrowInvalid(_SHORT_FAULT)
        return io.BytesIO(self._with_short_delimiter(text))

    @property
    def _delimiter(self) -> str:
        delimiter = self.file_format.delimiter
        return delimiter if len(delimiter) == 1 else _SHORT_DELIMITER

    def _with_short_delimiter(self, text: bytes) -> bytes:
        return text.replace(
            self.file_format.delimiter.encode(), self._delimiter.encode()
        )

    def _split(self, line: str) -> list[str] | None:
        """Returns the values of a line; `None` if a quote is not closed."""
        if not self.file_format.quoted or '"' not in line:
            return line.split(self._delimiter)
        # A quote that is not closed takes the second line too.
        reader = csv.reader([line, ""], delimiter=self._delimiter)
        values = next(reader)
        return values if reader.line_num == 1 else None

    def names(self, source: SourceFile) -> list[str]:
        """Returns the names of all columns of a file.

        Raises:
            InputError: If the header is none, or lacks one of `columns`.
        """
        with source.open() as stream:
            return self._header(source, io.BufferedReader(stream, 1 << 16))

    def _header(self, source: SourceFile, file: IO[bytes]) -> list[str]:
        if self.file_format.column_names is not None:
            return list(self.file_format.column_names)
        where = f"{source.path}, line 1"
        raw = file.readline(_HEADER_BYTES)
        try:
            line = self._with_short_delimiter(raw).decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where}: the header is not UTF-8 text."
            ) from error
        names = [
            name.strip() for name in self._split(line.rstrip("\r\n")) or ()
        ]
        absent = [name for name in self.columns if name not in names]
        if absent:
            shown = line if len(line) <= 500 else f"{line[:500]}..."
            raise InputError(
                f"{where}: the header has no column {', '.join(absent)}. "
                f"Received: {' '.join(shown.split())}"
            )
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise InputError(f"{where}: columns repeat: {', '.join(repeated)}.")
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in raw or b"\0" in raw or len(raw) == _HEADER_BYTES:
            raise InputError(
                f"{where}: the header holds a carriage return or a NUL, or is "
                f"of {_HEADER_BYTES:,} bytes and more."
            )
        return names

    def _locate(
        self, source: SourceFile, start: int, end: int | None, reason: str
    ) -> InputError:
        """Finds the line that arrow refused, which it does not tell itself."""
        return self._first_fault(source, start, end) or InputError(
            f"{source.path}: {' '.join(reason.split())}"
        )

    def _first_fault(
        self, source: SourceFile, start: int, end: int | None
    ) -> InputError | None:
        names = self.names(source)
        row = start - int(self._has_header and not start)
        with source.open(start, end) as stream:
            file = io.BufferedReader(stream)
            while line := file.readline(_BLOCK_BYTES + 1):
                fault = row >= start and self._fault(line, names)
                if fault:
                    where = self.where(source, start, row)
                    return InputError(f"{where}: {fault}.")
                row += 1
        return None

    def _fault(self, line: bytes, names: list[str]) -> str:
        """Returns what is wrong with a line, or an empty text."""
        if len(line) > _BLOCK_BYTES:
            return f"a line of more than {_BLOCK_BYTES:,} bytes"
        cut_off = "" if line.endswith(b"\n") else "; the file looks cut off"
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in line:
            return "a carriage return within the line"
        if b"\0" in line:
            return "a NUL character"
        if not line:
            return ""
        is_short = len(self.file_format.delimiter) == 1
        if not is_short and _SHORT_DELIMITER.encode() in line:
            return _SHORT_FAULT
        # What is not read may be no text: arrow does not look at it.
        values = self._split(
            self._with_short_delimiter(line).decode(
                self.file_format.encoding, errors="surrogateescape"
            )
        )
        if values is None:
            return f"a quoted value does not end on its line{cut_off}"
        if len(values) != len(names):
            return f"{len(values)} values where {len(names)} belong{cut_off}"
        for name, value in zip(names, values, strict=True):
            if (
                name not in self.columns
                or value in self.file_format.null_values
            ):
                continue
            if _ESCAPED.search(value):
                return f"not {self.file_format.encoding} text"
            if not _is_a(value.strip(" \t"), self.columns[name]):
                return (
                    f"`{name}` is not {_describe(self.columns[name])}: "
                    f"{value!r}{cut_off}"
                )
        return ""


def _is_a(value: str, arrow_type: pa.DataType) -> bool:
    if pa.types.is_integer(arrow_type):
        if not _INTEGER.fullmatch(value):
            return False
        # Python refuses to read thousands of digits.
        return len(value.lstrip("-0")) < 20 and (
            -_INT64_LIMIT <= int(value) < _INT64_LIMIT
        )
    if pa.types.is_floating(arrow_type):
        return _NUMBER.fullmatch(value) is not None
    return True


def _describe(arrow_type: pa.DataType) -> str:
    if pa.types.is_integer(arrow_type):
        return "a whole number"
    return "a number" if pa.types.is_floating(arrow_type) else "text"
