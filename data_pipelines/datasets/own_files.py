"""The files that a section of a schema file names: Parquet, or text."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.datasets.schema_fields import FilesEntry
from data_pipelines.datasets.schema_file import SchemaFile
from data_pipelines.raw.casting import is_text
from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_table import Reader
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError, did_you_mean

_MAX_FILES = 1 << 15
"""A row number has 15 bits for the file."""

_TEXT = {".csv": ",", ".tsv": "\t"}
"""Ends of the names of text files, and what stands between values."""

_SUFFIXES = {".parquet", *_TEXT}

_KINDS = {
    "int": "whole numbers",
    "text": "text",
    "number": "numbers",
    "timestamp": "timestamps",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnFiles:
    """The files of a section with the types of their columns.

    In a text file every column is text, and becomes what it is read as.

    Args:
        described: The schema file.
        section: Its section.
        sources: The files.
        schemas: Names and types of the columns of each.
        text_format: How they are laid out; `None` for Parquet files.
    """

    described: SchemaFile
    section: str
    sources: tuple[SourceFile, ...]
    schemas: tuple[pa.Schema, ...]
    text_format: CsvFormat | None = None

    @classmethod
    def find(
        cls, described: SchemaFile, entry: FilesEntry, raw_dir: Path
    ) -> "OwnFiles":
        """Finds the files of a section and reads their headers.

        Raises:
            InputError: If there is none, or they are not of one kind, or one
                is not of its kind.
        """
        paths: list[Path] = []
        for name in entry.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise described.error(
                    entry.section,
                    f"`files` must be within --raw_dir. Received: {name!r}",
                )
            try:
                found = list(_files(raw_dir, name))
            except ValueError as error:  # a pattern such as "**a"
                raise described.error(
                    entry.section, f"`files`: {name!r}: {error}"
                ) from error
            if not found:
                raise described.error(
                    entry.section,
                    f"`files`: {raw_dir} has no Parquet, CSV or TSV file "
                    f"{name!r}."
                    + did_you_mean(name, (p.name for p in raw_dir.iterdir())),
                )
            paths += [path for path in found if path not in paths]
        if len(paths) >= _MAX_FILES:
            raise described.error(
                entry.section,
                f"`files`: {len(paths):,} files are more than "
                f"{_MAX_FILES - 1:,}; write fewer, larger ones",
            )
        sources = tuple(SourceFile(path=path) for path in paths)
        text_format = _text_format(described, entry, paths)
        if text_format is None:
            schemas = tuple(_read_schema(path) for path in paths)
        else:
            reader = CsvReader(columns={}, file_format=text_format)
            schemas = tuple(
                pa.schema([(name, pa.string()) for name in reader.names(s)])
                for s in sources
            )
        return cls(
            described=described,
            section=entry.section,
            sources=sources,
            schemas=schemas,
            text_format=text_format,
        )

    def reader(self, columns: Iterable[str]) -> Reader:
        """Returns what reads some columns of these files."""
        if self.text_format is None:
            return ParquetReader(columns=dict.fromkeys(columns))
        return CsvReader(
            columns=dict.fromkeys(columns, pa.string()),
            file_format=self.text_format,
        )

    def kind(
        self, column: str, where: str, kinds: tuple[str, ...], num_lists: int
    ) -> str:
        """Checks that every file has a column of one of some kinds.

        Args:
            column: The column.
            where: The part of the schema file that names it.
            kinds: What it may hold.
            num_lists: How many lists deep these may be in it, at most.

        Returns:
            The kind, numbers where only some files have whole ones; an empty
            text if it holds nothing in any file.
        """
        found = ""
        for source, schema in zip(self.sources, self.schemas, strict=True):
            if column not in schema.names:
                raise self.described.error(
                    where,
                    f"{source.path} has no column {column!r}; it has "
                    f"{', '.join(schema.names)}."
                    + did_you_mean(column, schema.names),
                )
            if schema.names.count(column) > 1:
                raise self.described.error(
                    where,
                    f"{source.path} has {schema.names.count(column)} columns "
                    f"{column!r}",
                )
            if self.text_format is not None:
                found = "text" if "text" in kinds else kinds[-1]
                continue
            column_type = schema.field(column).type
            element = column_type
            for _ in range(num_lists):
                element = element.value_type if _is_list(element) else element
            kind = _kind(element)
            if kind == "null":
                continue
            if kind not in kinds:
                raise self.described.error(
                    where,
                    f"column {column!r} of {source.path} is of type "
                    f"{column_type}, where "
                    f"{_in_words(kinds)} belong."
                    + self._list_hint(column_type),
                )
            if {found, kind} == {"int", "number"}:
                kind = found = "number"
            if found not in ("", kind):
                raise self.described.error(
                    where,
                    f"column {column!r} holds {_KINDS[found]} in some files "
                    f"and {_KINDS[kind]} ({column_type}) in {source.path}",
                )
            found = kind
        return found

    def _list_hint(self, column_type: pa.DataType) -> str:
        if self.section == "impressions" and _is_list(column_type):
            return (
                " If a row is a request with lists of candidates, the section "
                "is [requests]; if it is a set of values, its field needs "
                "`max_values`."
            )
        return ""

    def num_lists(self, column: str) -> int:
        """Returns how many lists deep the values of a column are.

        Raises:
            InputError: If they are not as deep in every file.
        """
        types = [schema.field(column).type for schema in self.schemas]
        found = {_depth(t) for t in types if not pa.types.is_null(t)}
        if len(found) > 1:
            raise self.described.error(
                self.section,
                f"column {column!r} is a list in some files and none in others",
            )
        return next(iter(found), 0)


def _text_format(
    described: SchemaFile, entry: FilesEntry, paths: list[Path]
) -> CsvFormat | None:
    """Returns how the files of a section are laid out, `None` for Parquet."""
    kinds = {next((t for t in _TEXT if t in p.suffixes), "") for p in paths}
    if len(kinds) > 1:
        raise described.error(
            entry.section,
            "`files`: all files of a section must be of one kind. Received: "
            + ", ".join(sorted({path.name for path in paths})[:5]),
        )
    (kind,) = kinds
    if not kind:
        if entry.delimiter is not None:
            raise described.error(
                entry.section, "`delimiter` is for files of text"
            )
        return None
    return CsvFormat(delimiter=entry.delimiter or _TEXT[kind])


def _files(raw_dir: Path, name: str) -> Iterator[Path]:
    """Yields the files of a path or pattern, those of a folder by name."""
    exact = raw_dir / name
    if exact.is_file():
        yield exact
        return
    for path in [exact] if exact.exists() else sorted(raw_dir.glob(name)):
        is_file = path.is_file()
        folder = path.parent if is_file else path
        for file in [path] if is_file else sorted(path.rglob("*")):
            if not is_file and not _SUFFIXES.intersection(file.suffixes):
                continue
            # Spark and others write files of their own beside the data.
            is_hidden = any(
                part.startswith(("_", "."))
                for part in file.relative_to(folder).parts
            )
            if file.is_file() and not is_hidden:
                yield file


def _in_words(kinds: tuple[str, ...]) -> str:
    # Numbers can be ids where a table says so, which few have to know.
    hidden = "number" if "text" in kinds else "int"
    return " or ".join(_KINDS[kind] for kind in kinds if kind != hidden)


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a Parquet file: {' '.join(str(error).split())}"
        ) from error


def _is_list(column_type: pa.DataType) -> bool:
    return (
        pa.types.is_list(column_type)
        or pa.types.is_large_list(column_type)
        or pa.types.is_fixed_size_list(column_type)
    )


def _depth(column_type: pa.DataType) -> int:
    depth = 0
    while _is_list(column_type):
        column_type, depth = column_type.value_type, depth + 1
    return depth


def _kind(column_type: pa.DataType) -> str:
    """Returns what a column holds; an empty text for anything else."""
    types = pa.types
    if types.is_dictionary(column_type):
        return _kind(column_type.value_type)
    tests = {
        "null": (types.is_null,),
        "int": (types.is_integer, types.is_boolean),
        "text": (is_text,),
        "number": (types.is_floating, types.is_decimal),
        "timestamp": (types.is_timestamp,),
    }
    for kind, checks in tests.items():
        if any(check(column_type) for check in checks):
            return kind
    return ""
