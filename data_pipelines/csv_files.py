"""Delimited text to arrow tables, with errors that name file and line."""

import contextlib
import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_pipelines.source_file import SourceFile
from sparsectr.errors import InputError

_INTEGER = re.compile(r"[+-]?[0-9]+")
_INT64_LIMIT = 1 << 63
_SHORT_DELIMITER = "\x1f"
"""Stands in for a delimiter of several characters."""


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


class CsvFile:
    """A delimited text file, read whole, whose rows know their line.

    Args:
        source: The file.
        columns: Arrow type of every column to read; others are skipped.
        required: Columns that may not have a missing value.
        file_format: How the text is laid out.

    Attributes:
        source: The file.
        table: The columns, in the order of `columns`, rows as in the file.

    Raises:
        InputError: If the header or a row is not what `columns` asks for, or
            the last line is cut off.
    """

    def __init__(
        self,
        source: SourceFile,
        columns: Mapping[str, pa.DataType],
        *,
        required: Sequence[str] = (),
        file_format: CsvFormat | None = None,
    ) -> None:
        self.source = source
        self._format = file_format or CsvFormat()
        self._num_header_lines = int(self._format.column_names is None)
        self.table = self._read(columns)
        for name, column_type in columns.items():
            if pa.types.is_floating(column_type):
                column = self.table[name]
                finite = pc.or_(
                    pc.is_null(column),
                    pc.fill_null(pc.is_finite(column), False),
                )
                self.require(finite, f"`{name}` is not finite", name)
        for name in required:
            self.require(
                pc.is_valid(self.table[name]), f"`{name}` is missing", name
            )

    def require(self, valid: pa.ChunkedArray, rule: str, *shown: str) -> None:
        """Checks that a condition holds in every row.

        Args:
            valid: One boolean a row.
            rule: What is wrong with the row where it is false.
            *shown: Columns whose values the message shows.

        Raises:
            InputError: If it does not; the message names the first such line.
        """
        wrong = np.flatnonzero(~valid.to_numpy().astype(bool))
        if not len(wrong):
            return
        row = int(wrong[0])
        values = ", ".join(f"{n}={self.table[n][row].as_py()!r}" for n in shown)
        raise self._error(row + 1 + self._num_header_lines, rule, values)

    def require_unique(self, column: str) -> None:
        """Checks that no value of `column` repeats.

        Raises:
            InputError: If one does.
        """
        repeated = self.table[column].to_pandas().duplicated().to_numpy()
        self.require(pa.chunked_array([~repeated]), "repeated id", column)

    def _error(self, line: int, rule: str, shown: str = "") -> InputError:
        found = f" Received: {shown}" if shown else ""
        return InputError(f"{self.source.path}, line {line}: {rule}.{found}")

    def _read(self, columns: Mapping[str, pa.DataType]) -> pa.Table:
        with self.source.open() as stream:
            text: io.BufferedIOBase = io.BufferedReader(stream)
            if len(self._format.delimiter) > 1:
                # Arrow knows delimiters of one character alone, and such
                # files (MovieLens) are small enough to be replaced in memory.
                text = io.BytesIO(self._with_short_delimiter(text.read()))
            names = self._header(text, columns)
            try:
                table = self._parse(text, names, columns)
            except pa.ArrowInvalid as error:
                raise self._locate(names, columns, str(error)) from error
            num_lines = table.num_rows + self._num_header_lines
            if stream.last_byte not in (b"\n", b""):
                raise self._error(
                    num_lines,
                    "the last line has no line end, so the file looks cut off",
                )
            # To arrow a quote that is not closed holds all lines that follow.
            if num_lines != stream.num_line_ends:
                raise self._locate(names, columns, "rows are not lines")
        return table

    def _parse(
        self,
        text: io.BufferedIOBase,
        names: Sequence[str],
        columns: Mapping[str, pa.DataType],
    ) -> pa.Table:
        try:
            return pyarrow.csv.read_csv(
                text,
                pyarrow.csv.ReadOptions(
                    column_names=names, encoding=self._format.encoding
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter,
                    quote_char='"' if self._format.quoted else False,
                    ignore_empty_lines=False,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict(columns),
                    include_columns=list(columns),
                    null_values=list(self._format.null_values),
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise
            return pa.schema(list(columns.items())).empty_table()

    @property
    def _delimiter(self) -> str:
        delimiter = self._format.delimiter
        return delimiter if len(delimiter) == 1 else _SHORT_DELIMITER

    def _with_short_delimiter(self, text: bytes) -> bytes:
        return text.replace(
            self._format.delimiter.encode(), self._delimiter.encode()
        )

    def _split(self, line: str) -> list[str]:
        reader = csv.reader(
            [line],
            delimiter=self._delimiter,
            quoting=csv.QUOTE_MINIMAL
            if self._format.quoted
            else csv.QUOTE_NONE,
        )
        try:
            return next(reader, [])
        except csv.Error:
            # A carriage return within the line, or a value without an end.
            return [line]

    def _header(
        self, text: io.BufferedIOBase, columns: Mapping[str, pa.DataType]
    ) -> list[str]:
        if self._format.column_names is not None:
            return list(self._format.column_names)
        try:
            line = text.readline().decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self._error(1, "the header is not UTF-8 text") from error
        names = [name.strip() for name in self._split(line)]
        absent = [name for name in columns if name not in names]
        if absent:
            raise self._error(
                1, f"the header has no column {', '.join(absent)}", line
            )
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise self._error(1, f"columns repeat: {', '.join(repeated)}")
        return names

    def _locate(
        self,
        names: Sequence[str],
        columns: Mapping[str, pa.DataType],
        reason: str,
    ) -> InputError:
        """Finds the line that arrow refused, which it does not tell itself."""
        with self.source.open() as stream:
            for number, line in enumerate(io.BufferedReader(stream), 1):
                if number <= self._num_header_lines:
                    continue
                fault = self._fault(line, names, columns)
                if fault:
                    return self._error(number, fault)
        return InputError(f"{self.source.path}: {' '.join(reason.split())}")

    def _fault(
        self,
        line: bytes,
        names: Sequence[str],
        columns: Mapping[str, pa.DataType],
    ) -> str:
        """Returns what is wrong with a line, or an empty text."""
        cut_off = "" if line.endswith(b"\n") else "; the file looks cut off"
        try:
            text = self._with_short_delimiter(line).decode(
                self._format.encoding
            )
        except UnicodeDecodeError:
            return f"not {self._format.encoding} text"
        if self._format.quoted and text.count('"') % 2:
            return f"a quoted value does not end on its line{cut_off}"
        values = self._split(text.rstrip("\r\n"))
        if len(values) != len(names):
            return f"{len(values)} values where {len(names)} belong{cut_off}"
        for name, value in zip(names, values, strict=True):
            if name not in columns or value in self._format.null_values:
                continue
            if not _is_a(value.strip(), columns[name]):
                return (
                    f"`{name}` is not {_describe(columns[name])}: "
                    f"{value!r}{cut_off}"
                )
        return ""


def _is_a(value: str, arrow_type: pa.DataType) -> bool:
    if pa.types.is_integer(arrow_type):
        return (
            _INTEGER.fullmatch(value) is not None
            and -_INT64_LIMIT <= int(value) < _INT64_LIMIT
        )
    if pa.types.is_floating(arrow_type):
        with contextlib.suppress(ValueError):
            float(value)
            return True
        return False
    return True


def _describe(arrow_type: pa.DataType) -> str:
    if pa.types.is_integer(arrow_type):
        return "a whole number"
    return "a number" if pa.types.is_floating(arrow_type) else "text"
