"""The schema file of one's own tables: what it says, checked by itself.

`docs/own_tables.md` says what may stand in it. Whether the Parquet files have
what it names is checked in `own_tables.py`.
"""

import dataclasses
import datetime
import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.raw.raw_dataset import LATEST_TIME
from data_pipelines.raw.split_rule import (
    FromTime,
    LastDay,
    LastFraction,
    SplitRule,
    describe_day,
    start_of_day,
)
from sparsectr.errors import InputError

_USER = {"files": True, "user": True}
_TIMED = {**_USER, "time": True, "time_unit": False, "time_zone": False}
_SHOWN = {**_TIMED, "label": True, "request": False, "item": False}

_SECTIONS: dict[str, dict[str, bool]] = {
    "impressions": {**_SHOWN, "drop_duplicates": False},
    "requests": _SHOWN,
    "behaviors": {**_TIMED, "item": False, "drop_duplicates": False},
    "users": _USER,
    "items": {"files": True, "item": True},
}
"""Keys of the tables of files, and whether each is required."""

_FIELD_KINDS = (
    "user_fields",
    "behavior_fields",
    "candidate_fields",
    "dense_fields",
)

_RESERVED = ("user_id", "time", "request", "label", "mask", "offset")
"""Columns of the raw tables and of the store, and tensors of the reader."""

TIME_UNITS = {
    "s": ("seconds", 1),
    "ms": ("milliseconds", 10**3),
    "us": ("microseconds", 10**6),
    "ns": ("nanoseconds", 10**9),
}
"""Units in words, and how many are a second."""

_TYPES: dict[type, str] = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    dict: "a section",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesEntry:
    """What a section such as `[impressions]` says; the keys are its own.

    Args:
        section: Its name.
        files: Files, folders or patterns under the folder of the raw files.
    """

    section: str
    files: tuple[str, ...]
    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: str = "s"
    time_zone: str = "UTC"
    request: str | None = None
    label: str | None = None
    drop_duplicates: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldEntry:
    """A field of the data set and the column that it comes from.

    Args:
        kind: `user_fields`, for example.
        name: Its name.
        section: The table of files.
        column: The column.
        table: Its embedding table; empty for a dense field.
        transform: For a dense field.
    """

    kind: str
    name: str
    section: str
    column: str
    table: str
    transform: str

    @property
    def where(self) -> str:
        """Where it stands in the file."""
        return f"{self.kind}.{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchemaFile:
    """A schema file that contradicts nothing in itself.

    Args:
        path: The file.
        utc_offset_hours: Time zone of the data set.
        files: The tables of files, by section.
        fields: All fields.
        tables: What is said of embedding tables, by name: `kind`, `size`,
            `min_count` and `type`, where given. Every table that a field has
            is there.
        split: Which requests are for test.
    """

    path: Path
    utc_offset_hours: int
    files: Mapping[str, FilesEntry]
    fields: tuple[FieldEntry, ...]
    tables: Mapping[str, Mapping[str, Any]]
    split: SplitRule

    @property
    def impressions(self) -> str:
        """The section of what was shown: "impressions" or "requests"."""
        return "impressions" if "impressions" in self.files else "requests"

    def error(self, where: str, problem: str) -> InputError:
        """Returns an error of one line that names the file and a place."""
        return _error(self.path, where, problem)


def read_schema_file(path: Path) -> SchemaFile:
    """Reads and checks a schema file.

    Raises:
        InputError: If it is not as documented.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    top = _Section(path, "", values)
    top.check_keys(
        {
            **dict.fromkeys(_SECTIONS, False),
            **dict.fromkeys(_FIELD_KINDS, False),
            "behaviors": True,
            "candidate_fields": True,
            "behavior_fields": True,
            "split": True,
            "utc_offset_hours": False,
            "tables": False,
        }
    )
    offset = top.get("utc_offset_hours", int, 0)
    if not -12 <= offset <= 14:
        raise top.error(
            "`utc_offset_hours` must be whole hours from -12 to 14. "
            f"Received: {offset}"
        )
    if ("impressions" in values) == ("requests" in values):
        raise top.error(
            "there must be either [impressions], one row a candidate, or "
            "[requests], one row a request with lists of candidates"
        )
    shown = "impressions" if "impressions" in values else "requests"
    if values["behaviors"] == shown:
        del values["behaviors"]
    elif isinstance(values["behaviors"], str):
        raise top.error(
            f'`behaviors` must be "{shown}" or the section [behaviors]'
        )
    files = {
        name: _files_entry(_Section(path, name, values[name]))
        for name in _SECTIONS
        if name in values
    }
    if "items" in files and files[shown].item is None:
        raise _error(
            path,
            shown,
            "`item` is missing: which column names a row of [items]",
        )
    for entry in files.values():
        if entry.item is not None and "items" not in files:
            raise _error(path, entry.section, "`item` needs a section [items]")
    fields, tables = _fields_and_tables(top, files)
    return SchemaFile(
        path=path,
        utc_offset_hours=offset,
        files=files,
        fields=fields,
        tables=tables,
        split=_split(_Section(path, "split", values["split"]), offset),
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that ends a message, if a known name is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class _Section:
    """Some keys with their values.

    Args:
        path: The schema file.
        name: Name of the section; empty for the top of the file.
        values: What stands there.
    """

    def __init__(self, path: Path, name: str, values: Any) -> None:
        self.path = path
        self.name = name
        if not isinstance(values, dict):
            raise _error(path, "", f"`{name}` must be a section, [{name}]")
        self.values = values

    def check_keys(self, keys: Mapping[str, bool]) -> None:
        """Refuses unknown keys, and those absent that `keys` requires."""
        for key in self.values:
            if key not in keys:
                raise self.error(
                    f"unknown key {key!r}; known are {', '.join(keys)}."
                    + did_you_mean(key, keys)
                )
        for key, is_required in keys.items():
            if is_required and key not in self.values:
                raise self.error(f"`{key}` is missing")

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Returns a value of a given type."""
        value = self.values.get(key, default)
        # To Python a bool is an int.
        if value is not default and type(value) is not kind:
            raise self.error(
                f"`{key}` must be {_TYPES[kind]}. Received: {value!r}"
            )
        return value

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """Returns one of several texts."""
        value: str = self.get(key, str, default)
        if value not in choices:
            raise self.error(
                f"`{key}` must be one of {', '.join(choices)}. "
                f"Received: {value!r}"
            )
        return value

    def error(self, problem: str) -> InputError:
        """Returns an error that names the file and the section."""
        return _error(self.path, self.name, problem)


def _error(path: Path, where: str, problem: str) -> InputError:
    place = f" {where}:" if where else ""
    return InputError(f"{path}:{place} {problem}".replace("\n", " "))


def _files_entry(section: _Section) -> FilesEntry:
    section.check_keys(_SECTIONS[section.name])
    files = section.values["files"]
    names = [files] if isinstance(files, str) else files
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise section.error(
            f"`files` must be a path or a list of paths. Received: {files!r}"
        )
    texts = {
        key: section.get(key, str)
        for key in ("user", "item", "time", "request", "label")
    }
    return FilesEntry(
        section=section.name,
        files=tuple(names),
        time_unit=section.choice("time_unit", TIME_UNITS, "s"),
        time_zone=section.choice("time_zone", ("UTC", "local"), "UTC"),
        drop_duplicates=section.get("drop_duplicates", bool, False),
        **texts,
    )


def _fields_and_tables(
    top: _Section, files: Mapping[str, FilesEntry]
) -> tuple[tuple[FieldEntry, ...], dict[str, dict[str, Any]]]:
    fields = [
        _field(_Section(top.path, kind, top.get(kind, dict, {})), name, files)
        for kind in _FIELD_KINDS
        for name in top.get(kind, dict, {})
    ]
    known = _Section(top.path, "tables", top.get("tables", dict, {}))
    tables = {name: _table(known, name) for name in known.values}
    # A misspelled name would silently be a table that nothing shares.
    names = {f.name for f in fields if f.table == f.name} | tables.keys()
    used = {field.table for field in fields}
    for field in fields:
        if field.table and field.table not in names:
            raise _error(
                top.path,
                field.where,
                f"there is no embedding table {field.table!r}: give it a "
                f"section [tables.{field.table}], or name one of "
                f"{', '.join(sorted(names))}."
                + did_you_mean(field.table, names),
            )
    for name in tables:
        if name not in used:
            raise known.error(
                f"no field has the table {name!r}; the fields have "
                f"{', '.join(sorted(used - {''}))}." + did_you_mean(name, used)
            )
    return tuple(fields), {
        name: tables.get(name, {}) for name in sorted(used - {""})
    }


def _table(tables: _Section, name: str) -> dict[str, Any]:
    section = _Section(tables.path, f"tables.{name}", tables.values[name])
    section.check_keys(
        dict.fromkeys(("kind", "size", "min_count", "type"), False)
    )
    if "type" in section.values:
        section.choice("type", ("int", "string"), "int")
    if "kind" in section.values:
        section.choice("kind", ("vocabulary", "hashed"), "vocabulary")
    is_hashed = section.values.get("kind") == "hashed"
    if is_hashed and "size" not in section.values:
        raise section.error("a hashed table needs a `size`")
    # A vocabulary is as large as what the training period shows.
    excess = "min_count" if is_hashed else "size"
    if excess in section.values:
        kind = "hashed table" if is_hashed else "vocabulary"
        raise section.error(f"`{excess}` does not apply to a {kind}")
    for key, least in (("size", 3), ("min_count", 1)):
        if section.get(key, int, least) < least:
            raise section.error(f"`{key}` must be at least {least}")
    return dict(section.values)


def _field(
    group: _Section, name: str, files: Mapping[str, FilesEntry]
) -> FieldEntry:
    kind = group.name
    value = group.values[name]
    section = _Section(
        group.path,
        f"{kind}.{name}",
        {"column": value} if isinstance(value, str) else value,
    )
    is_dense = kind == "dense_fields"
    section.check_keys(
        {"column": True, "transform" if is_dense else "table": False}
    )
    if name in _RESERVED:
        raise section.error(
            f"no field can be called {name!r}, as a column of the store or of "
            "a batch is. Give it another name."
        )
    source, _, column = section.get("column", str).partition(".")
    known = _sections_of(kind, files)
    if not column or source not in known:
        raise section.error(
            "a column is written as TABLE.COLUMN, where TABLE is "
            f"{' or '.join(known)}. Received: {section.values['column']!r}"
            + did_you_mean(source, known)
        )
    if kind != "behavior_fields" and column == files[source].label:
        raise section.error(
            f"the column {column!r} is the label of [{source}], the answer "
            "itself: only a behavior field may come from it"
        )
    return FieldEntry(
        kind=kind,
        name=name,
        section=source,
        column=column,
        table="" if is_dense else section.get("table", str, name),
        transform=section.choice(
            "transform", ("identity", "log1p"), "identity"
        ),
    )


def _sections_of(kind: str, files: Mapping[str, FilesEntry]) -> list[str]:
    """Returns the tables of files that fields of a kind can come from."""
    shown = "impressions" if "impressions" in files else "requests"
    if kind == "user_fields":
        known = ["users", shown]
    elif kind != "behavior_fields" or "behaviors" not in files:
        known = [shown, "items"]
    elif files["behaviors"].item is None:
        known = ["behaviors"]
    else:
        known = ["behaviors", "items"]
    return [name for name in known if name in files]


def _split(section: _Section, offset: int) -> SplitRule:
    keys = ("test_start", "last_day", "last_fraction")
    section.check_keys(dict.fromkeys(keys, False))
    if len(section.values) != 1:
        raise section.error(f"one of {', '.join(keys)} must be given")
    ((key, value),) = section.values.items()
    if key == "last_day":
        if value is not True:
            raise section.error("`last_day` can only be true")
        return LastDay(utc_offset_hours=offset)
    if key == "last_fraction":
        if type(value) is not float or not 0.0 < value < 1.0:
            raise section.error(
                "`last_fraction` must be a number between 0 and 1, such as "
                f"0.1. Received: {value!r}"
            )
        return LastFraction(fraction=1.0 - value)
    if not isinstance(value, datetime.date):
        raise section.error(
            "`test_start` must be a date such as 2026-03-01, or a date with "
            f"a time, without quotes. Received: {value!r}"
        )
    if not isinstance(value, datetime.datetime):
        time = start_of_day(value, offset)
        rule = describe_day(time, offset)
    else:
        if value.tzinfo is None:
            zone = datetime.timezone(datetime.timedelta(hours=offset))
            value = value.replace(tzinfo=zone)
        time = int(value.timestamp())
        rule = f"from {value} on for test"
    if not 0 < time < LATEST_TIME:
        raise section.error("`test_start` must be between 1970 and 2100")
    return FromTime(time=time, rule=rule)
