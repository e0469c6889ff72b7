"""Delimited text to arrow tables, with errors that name file and line."""

import contextlib
import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_pipelines.source_file import SourceFile
from sparsectr.errors import InputError

_INTEGER = re.compile(r"[+-]?[0-9]+")
_INT64_LIMIT = 1 << 63


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
        for name in required:
            self.require(
                pc.is_valid(self.table[name]), f"`{name}` is missing", name
            )

    def require(
        self, valid: pa.ChunkedArray, rule: str, *shown: str
    ) -> None:
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
        layout = self._format
        delimiter = layout.delimiter
        with self.source.open() as stream:
            text: IO[bytes] = stream
            if len(delimiter) > 1:
                # Arrow knows delimiters of one character alone, and such
                # files (MovieLens) are small enough to be replaced in memory.
                data = stream.read().replace(delimiter.encode(), b"\x1f")
                text, delimiter = io.BytesIO(data), "\x1f"
            names = self._header(text, columns)
            try:
                table = pyarrow.csv.read_csv(
                    text,
                    pyarrow.csv.ReadOptions(
                        column_names=names, encoding=layout.encoding
                    ),
                    pyarrow.csv.ParseOptions(
                        delimiter=delimiter,
                        quote_char='"' if layout.quoted else False,
                        ignore_empty_lines=False,
                    ),
                    pyarrow.csv.ConvertOptions(
                        column_types=dict(columns),
                        include_columns=list(columns),
                        null_values=list(layout.null_values),
                        strings_can_be_null=True,
                    ),
                )
            except pa.ArrowInvalid as error:
                if "Empty CSV file" not in str(error):
                    raise self._locate(names, columns, error) from error
                table = pa.schema(list(columns.items())).empty_table()
            if stream.last_byte not in (b"\n", b""):
                raise self._error(
                    table.num_rows + self._num_header_lines,
                    "the last line has no line end, so the file looks cut off",
                )
        return table

    def _header(
        self, text: IO[bytes], columns: Mapping[str, pa.DataType]
    ) -> list[str]:
        if self._format.column_names is not None:
            return list(self._format.column_names)
        line = _read_line(text)
        try:
            decoded = line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self._error(1, "the header is not UTF-8 text") from error
        names = [
            name.strip()
            for name in next(csv.reader([decoded], **self._csv_options()), [])
        ]
        absent = [name for name in columns if name not in names]
        if absent:
            raise self._error(
                1, f"the header has no column {', '.join(absent)}", decoded
            )
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise self._error(1, f"columns repeat: {', '.join(repeated)}")
        return names

    def _csv_options(self) -> dict[str, object]:
        quoting = csv.QUOTE_MINIMAL if self._format.quoted else csv.QUOTE_NONE
        # A stand-in for a delimiter of several characters, as in `_read`.
        delimiter = self._format.delimiter
        return {
            "delimiter": delimiter if len(delimiter) == 1 else "\x1f",
            "quoting": quoting,
        }

    def _locate(
        self,
        names: Sequence[str],
        columns: Mapping[str, pa.DataType],
        error: pa.ArrowInvalid,
    ) -> InputError:
        """Finds the line that arrow refused, which it does not tell itself."""
        with self.source.open() as stream, io.BufferedReader(stream) as lines:
            for number, line in enumerate(lines, 1):
                if number <= self._num_header_lines:
                    continue
                fault = self._fault(line, names, columns)
                if fault:
                    return self._error(number, fault)
        reason = " ".join(str(error).split())
        return InputError(f"{self.source.path}: {reason}")

    def _fault(
        self,
        line: bytes,
        names: Sequence[str],
        columns: Mapping[str, pa.DataType],
    ) -> str:
        """Returns what is wrong with a line, or an empty text."""
        cut_off = "" if line.endswith(b"\n") else "; the file looks cut off"
        delimiter = self._format.delimiter
        if len(delimiter) > 1:
            line = line.replace(delimiter.encode(), b"\x1f")
        try:
            text = line.decode(self._format.encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            return f"not {self._format.encoding} text"
        values = next(csv.reader([text], **self._csv_options()), [])
        if len(values) != len(names):
            return f"{len(values)} values where {len(names)} belong{cut_off}"
        for name, value in zip(names, values, strict=True):
            if name not in columns or value in self._format.null_values:
                continue
            if not _is_a(value.strip(), columns[name]):
                return f"`{name}` is not {_describe(columns[name])}: {value!r}"
        return ""


def _read_line(text: IO[bytes]) -> bytes:
    line = bytearray()
    # Byte by byte, since a raw stream has no buffer to hand on to arrow.
    while not line.endswith(b"\n"):
        byte = text.read(1)
        if not byte:
            break
        line += byte
    return bytes(line)


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
