"""One's own tables: Parquet or text files that a schema file describes.

`docs/own_tables.md` is the page for those who bring a data set in. Everything
that can be known from the schema file and from the headers of the files is
checked before a row is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa

from data_pipelines.datasets.own_files import OwnFiles
from data_pipelines.datasets.own_rows import Column, OwnRows, TimeColumn
from data_pipelines.datasets.schema_fields import FieldEntry, FilesEntry
from data_pipelines.datasets.schema_file import SchemaFile, read_schema_file
from data_pipelines.datasets.statistics_sections import read_statistics
from data_pipelines.raw.raw_dataset import RawDataset, earlier_impressions
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.stores.vocabulary import arrow_type
from sparsectr.errors import InputError
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.time_zone import UTC

_ITEM = "__item"
"""No field has that name: `item_id` is one that many would give."""

_KEY_KINDS = ("int", "text")
_KEY_TYPES = {"int": pa.int64(), "text": pa.string(), "": pa.int64()}
_ID_KINDS = ("int", "text", "number")
_NUMBER_KINDS = ("int", "number")
_TIME_KINDS = ("int", "number", "timestamp")

_EXPLODED = ("requests", "behaviors")
"""Sections whose rows may hold lists, of candidates or of behaviors."""


def open_own_tables(schema_path: Path, raw_dir: Path) -> RawDataset:
    """Finds the files that a schema file names, and checks their columns.

    Args:
        schema_path: The schema file.
        raw_dir: Folder of the files.

    Raises:
        InputError: If the schema file is not as documented, or does not fit
            the files; the message names the file, the table and the column.
    """
    described = read_schema_file(schema_path)
    if not raw_dir.is_dir():
        raise InputError(f"{raw_dir} is not a folder.")
    files = {
        name: OwnFiles.find(described, entry, raw_dir)
        for name, entry in described.files.items()
    }
    return _Opening(described, files).dataset()


class _Opening:
    """The schema file and the files, put together.

    Args:
        described: The schema file.
        files: The files of each section.
    """

    def __init__(
        self, described: SchemaFile, files: Mapping[str, OwnFiles]
    ) -> None:
        self.described = described
        self.files = files
        self.user_kind = self._key_kind("user")
        self.item_kind = self._key_kind("item")
        self.schema = self._schema()

    def dataset(self) -> RawDataset:
        """Returns the data set that the schema file describes."""
        entries = self.described.files
        shown = self.described.impressions
        tables = {name: self._table(entry) for name, entry in entries.items()}
        self._check_names(tables)
        impressions = tables[shown]
        behaviors = tables.get("behaviors")
        return RawDataset(
            schema=self.schema,
            impressions=impressions,
            behaviors=earlier_impressions if behaviors is None else behaviors,
            users=tables.get("users"),
            items=tables.get("items"),
            item_key=_ITEM,
            split=self.described.split,
            unique_impressions=(
                tuple(impressions.empty.column_names)
                if entries[shown].drop_duplicates
                else ()
            ),
            unique_behaviors=(
                behaviors is not None and entries["behaviors"].drop_duplicates
            ),
            nouns=("candidates", "an item"),
        )

    def _key_kind(self, key: str) -> str:
        """Checks that ids of users (items) are of one kind everywhere."""
        found: dict[str, str] = {}
        for section, entry in self.described.files.items():
            column = getattr(entry, key)
            if column is None:
                continue
            kind = self.files[section].kind(
                column,
                f"{section}.{key}",
                _KEY_KINDS,
                num_lists=int(section in _EXPLODED and key == "item"),
            )
            found.setdefault(kind or "int", f"{section}.{column}")
        if len(found) > 1:
            raise self.described.error(
                f"`{key}`",
                f"ids are whole numbers in {found['int']} and text in "
                f"{found['text']}; to be compared they must be of one type",
            )
        return next(iter(found), "int")

    def _schema(self) -> DatasetSchema:
        described = self.described
        types = self._value_types()
        fields = described.fields

        def categorical(kind: str) -> tuple[CategoricalField, ...]:
            return tuple(
                CategoricalField(
                    name=field.name,
                    table=field.table,
                    max_values=field.max_values,
                )
                for field in fields
                if field.kind == kind
            )

        def dense(kind: str) -> tuple[DenseField, ...]:
            return tuple(
                DenseField(
                    name=field.name,
                    transform=(
                        "log1p" if field.transform == "log1p" else "identity"
                    ),
                )
                for field in fields
                if field.kind == kind
            )

        shown = described.files[described.impressions]
        statistics = read_statistics(described)
        try:
            return DatasetSchema(
                name="parquet",
                tables=tuple(
                    Table(
                        name=name,
                        value_type=types[name],
                        **{k: v for k, v in said.items() if k != "type"},
                    )
                    for name, said in described.tables.items()
                ),
                user_fields=categorical("user_fields"),
                behavior_fields=categorical("behavior_fields"),
                candidate_fields=categorical("candidate_fields"),
                training_fields=categorical("training_fields"),
                user_dense_fields=dense("user_dense_fields"),
                behavior_dense_fields=dense("behavior_dense_fields"),
                candidate_dense_fields=dense("candidate_dense_fields"),
                has_weight=shown.weight is not None,
                negative_rate=shown.negative_rate,
                time_zone=described.time_zone,
                time_fields=described.time_fields,
            ).with_statistics(statistics)
        except ValueError as error:
            raise described.error("", str(error)) from error

    def _value_types(self) -> dict[str, Literal["int", "string"]]:
        """Returns whether an embedding table is of integers or of texts."""
        found: dict[str, dict[str, FieldEntry]] = {}
        for field in self.described.fields:
            kind = self.files[field.section].kind(
                field.column,
                field.where,
                _ID_KINDS if field.table else _NUMBER_KINDS,
                num_lists=(field.max_values is not None)
                + self._may_be_exploded(field),
            )
            self._check_lists(field)
            if field.table and kind:
                found.setdefault(field.table, {}).setdefault(kind, field)
        types: dict[str, Literal["int", "string"]] = {}
        for table, said in self.described.tables.items():
            kinds = found.get(table, {})
            if "number" in kinds and said.get("type") != "int":
                raise self.described.error(
                    kinds["number"].where,
                    "the column holds numbers that need not be whole, which "
                    "cannot be ids. If they are whole (pandas makes such "
                    "columns where integers are missing), say so: "
                    f'[tables.{table}] type = "int"',
                )
            if "type" not in said and len(kinds) > 1:
                raise self.described.error(
                    f"tables.{table}",
                    f"{kinds['int'].where} holds whole numbers and "
                    f"{kinds['text'].where} text; say which they become: "
                    'type = "string" or type = "int"',
                )
            is_text = said.get("type", "") == "string" or (
                "type" not in said and "text" in kinds
            )
            types[table] = "string" if is_text else "int"
        return types

    def _may_be_exploded(self, field: FieldEntry) -> bool:
        """Whether its column may be a list of one entry a candidate."""
        of_user = field.kind.startswith("user")
        return field.section in _EXPLODED and not of_user

    def _check_lists(self, field: FieldEntry) -> None:
        files = self.files[field.section]
        if files.num_lists(field.column) < field.num_lists:
            hint = (
                'what stands between its values: separator = "|"'
                if files.text_format is not None
                else "that it is none, without `max_values`"
            )
            raise self.described.error(
                field.where,
                f"column {field.column!r} is no list of values; say {hint}",
            )
        if field.separator is not None and files.num_lists(field.column):
            raise self.described.error(
                field.where,
                f"column {field.column!r} is a list of values: it needs no "
                "`separator`",
            )

    def _table(self, entry: FilesEntry) -> RawTable:
        columns = self._columns(entry)
        request = label = time = None
        shown = self.described.impressions
        if entry.time is not None:
            time = self._time(entry)
        if entry.label is not None:
            label = self._label(entry, entry.label)
        if entry.request is not None:
            kind = self.files[entry.section].kind(
                entry.request,
                f"{entry.section}.request",
                _KEY_KINDS,
                num_lists=0,
            )
            request = Column(
                name="request", source=entry.request, kind=_KEY_TYPES[kind]
            )
        weight = self._weight(entry)
        depths = {column.source: column.num_lists for column in columns}
        others = (entry.time, entry.request, label, entry.weight)
        depths |= {name: 0 for name in others if name is not None}
        files = self.files[entry.section]
        lists = tuple(
            name
            for name, depth in depths.items()
            if files.num_lists(name) > depth
        )
        if lists and entry.section == "behaviors":
            self._check_histories(entry, lists)
        return RawTable(
            name="impressions" if entry.section == shown else entry.section,
            sources=files.sources,
            reader=files.reader(depths),
            convert=OwnRows(
                noun=entry.section,
                columns=tuple(columns),
                time=time,
                label=label,
                weight=weight,
                request=request,
                has_requests=entry.section == shown,
                lists=lists,
            ),
        )

    def _columns(self, entry: FilesEntry) -> list[Column]:
        """Returns the ids and the fields of a table, each name once."""
        section = entry.section
        fields = self.described.fields
        columns = []
        if entry.user is not None:
            columns.append(("user", entry.user, "user_id", self.user_kind))
        # Behaviors are looked up among items only if a field asks for it.
        has_items = section != "behaviors" or any(
            f.kind == "behavior_fields" and f.section == "items" for f in fields
        )
        if entry.item is not None and has_items:
            columns.append(("item", entry.item, _ITEM, self.item_kind))
        found: dict[str, tuple[str, Column]] = {
            name: (
                f"{section}.{key}",
                Column(name=name, source=source, kind=_KEY_TYPES[kind]),
            )
            for key, source, name, kind in columns
        }
        for field in fields:
            if field.section != section:
                continue
            kind = (
                arrow_type(self.schema.table(field.table))
                if field.table
                else pa.float32()
            )
            column = Column(
                name=field.name,
                source=field.column,
                kind=kind,
                is_set=field.max_values is not None,
                separator=field.separator,
            )
            where, other = found.setdefault(field.name, (field.where, column))
            if other != column:
                raise self.described.error(
                    field.where,
                    f"{where} has the same name and is another column of "
                    f"{section}: give the field another name, and with "
                    "`table` its embedding table",
                )
        return [column for _, column in found.values()]

    def _time(self, entry: FilesEntry) -> TimeColumn:
        name, where = entry.time or "", f"{entry.section}.time"
        files = self.files[entry.section]
        may_be_list = entry.section == "behaviors"
        files.kind(name, where, _TIME_KINDS, num_lists=int(may_be_list))
        is_exact = False
        for source, schema in zip(files.sources, files.schemas, strict=True):
            column_type = schema.field(name).type
            if files.num_lists(name):
                column_type = column_type.value_type
            is_exact |= not (
                column_type.unit == "s"
                if pa.types.is_timestamp(column_type)
                else entry.time_unit == "s" and pa.types.is_integer(column_type)
            )
            if column_type in (pa.float32(), pa.float16()):
                raise self.described.error(
                    where,
                    f"column {name!r} of {source.path} is of type "
                    f"{column_type}, which holds Unix seconds to 128 seconds",
                )
        return TimeColumn(
            source=name,
            unit=entry.time_unit,
            time_zone=(
                self.described.time_zone if entry.time_zone == "local" else UTC
            ),
            is_exact=is_exact,
        )

    def _label(self, entry: FilesEntry, name: str) -> str:
        is_requests = entry.section == "requests"
        where = f"{entry.section}.label"
        files = self.files[entry.section]
        files.kind(name, where, _NUMBER_KINDS, num_lists=int(is_requests))
        if is_requests and not files.num_lists(name):
            raise self.described.error(
                where,
                f"column {name!r} is no list: a request has one label for "
                "each candidate",
            )
        return name

    def _weight(self, entry: FilesEntry) -> str | None:
        if entry.weight is not None:
            self.files[entry.section].kind(
                entry.weight,
                f"{entry.section}.weight",
                _NUMBER_KINDS,
                num_lists=int(entry.section == "requests"),
            )
        return entry.weight

    def _check_histories(
        self, entry: FilesEntry, lists: tuple[str, ...]
    ) -> None:
        """Checks a table of behaviors that has a row a user, with lists."""
        if entry.time not in lists or entry.user in lists:
            raise self.described.error(
                entry.section,
                f"column {lists[0]!r} is a list: one row a user has lists of "
                "equal length for its behaviors, `time` among them, and no "
                "list for `user`",
            )

    def _check_names(self, tables: Mapping[str, RawTable]) -> None:
        """Checks that columns that meet in one table differ in name."""
        shown = self.described.impressions
        joined = {c.name: (shown, c.type) for c in tables[shown].empty.schema}
        for section in ("items", "users"):
            if section not in tables:
                continue
            for column in tables[section].empty.schema:
                name = column.name
                if name in ("user_id", _ITEM):
                    continue
                other, kind = joined.setdefault(name, (section, column.type))
                # A profile of `users` stands in for a column of that name.
                is_allowed = section == "users" and kind == column.type
                if other != section and not is_allowed:
                    raise self.described.error(
                        "",
                        f"the field {name!r} is a column of {other} and "
                        f"another of {section}: give one of the fields "
                        "another name, and with `table` its embedding table",
                    )
