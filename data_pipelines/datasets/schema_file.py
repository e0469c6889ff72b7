"""The schema file of one's own tables: what it says, checked by itself.

`docs/own_tables.md` says what may stand in it. Whether the Parquet files have
what it names is checked in `own_tables.py`.
"""

import dataclasses
import datetime
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.raw.split_rule import (
    FromTime,
    LastDay,
    LastFraction,
    SplitRule,
    describe_day,
)
from sparsectr.errors import InputError, did_you_mean
from sparsectr.schema import LATEST_TIME
from sparsectr.time_fields import check_time_fields
from sparsectr.time_zone import MINUTES, UTC, TimeZone

_ID_KINDS = (
    "user_fields",
    "behavior_fields",
    "candidate_fields",
    "training_fields",
)
_NUMBER_KINDS = (
    "user_dense_fields",
    "behavior_dense_fields",
    "candidate_dense_fields",
)
_FIELD_KINDS = (*_ID_KINDS, *_NUMBER_KINDS)

_RESERVED = (
    *("user_id", "time", "request", "label", "weight"),
    *("mask", "offset"),
)
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
    float: "a number with a point, such as 0.1",
    dict: "a section",
}


Keys = Mapping[str, type | tuple[str, ...] | None]
"""Type of each value, or the texts to choose from; `None` is looked at later.
"""

_FILES: Keys = {"files": None, "delimiter": str}
_USER: Keys = {**_FILES, "user": str}
_TIMED: Keys = {
    **_USER,
    "time": str,
    "time_unit": tuple(TIME_UNITS),
    "time_zone": ("UTC", "local"),
}
_SHOWN: Keys = {
    **_TIMED,
    "label": str,
    "request": str,
    "item": str,
    "weight": str,
    "negative_rate": float,
}
_SECTIONS: Mapping[str, Keys] = {
    "impressions": {**_SHOWN, "drop_duplicates": bool},
    "requests": _SHOWN,
    "behaviors": {**_TIMED, "item": str, "drop_duplicates": bool},
    "users": _USER,
    "items": {**_FILES, "item": str},
}
"""The tables of files."""

_TABLE: Keys = {
    "kind": ("vocabulary", "hashed"),
    "size": int,
    "min_count": int,
    "type": ("int", "string"),
}
_TOP: Keys = {
    **dict.fromkeys(_SECTIONS),
    **dict.fromkeys(_FIELD_KINDS, dict),
    "split": dict,
    "utc_offset_hours": None,
    "utc_offset_minutes": None,
    "time_zone": str,
    "time_fields": None,
    "tables": dict,
    "statistics": dict,
}
_OFFSETS = {
    "utc_offset_hours": ("hours", 60),
    "utc_offset_minutes": ("minutes", 1),
}
"""Units of a fixed time zone, in words and in minutes."""

_SPLIT: Keys = dict.fromkeys(("test_start", "last_day", "last_fraction"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesEntry:
    """What a section such as `[impressions]` says; the keys are its own.

    Args:
        section: Its name.
        files: Files, folders or patterns under the folder of the raw files.
        delimiter: What stands between two values of a text file; `None` for
            what its name says.
    """

    section: str
    files: tuple[str, ...]
    delimiter: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: str = "s"
    time_zone: str = "UTC"
    request: str | None = None
    label: str | None = None
    weight: str | None = None
    negative_rate: float = 1.0
    drop_duplicates: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldEntry:
    """A field of the data set and the column that it comes from.

    Args:
        kind: `user_fields`, for example.
        name: Its name.
        section: The table of files.
        column: The column.
        table: Its embedding table; empty for a number.
        transform: For a number.
        max_values: For a set, how many ids of it are kept.
        separator: What stands between the values of a set in a text.
    """

    kind: str
    name: str
    section: str
    column: str
    table: str
    transform: str = "identity"
    max_values: int | None = None
    separator: str | None = None

    @property
    def num_lists(self) -> int:
        """How many lists deep one of its entries is in the column."""
        is_list = self.max_values is not None and self.separator is None
        return int(is_list)

    @property
    def where(self) -> str:
        """Where it stands in the file."""
        return f"{self.kind}.{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchemaFile:
    """A schema file that contradicts nothing in itself.

    Args:
        path: The file.
        time_zone: That of the data set.
        time_fields: What the model computes from times.
        files: The tables of files, by section.
        fields: All fields.
        tables: What is said of embedding tables, by name: `kind`, `size`,
            `min_count` and `type`, where given. Every table that a field has
            is there.
        split: Which requests are for test.
        statistics: The sections of statistics, by name, not looked at yet.
    """

    path: Path
    time_zone: TimeZone
    time_fields: tuple[str, ...]
    files: Mapping[str, FilesEntry]
    fields: tuple[FieldEntry, ...]
    tables: Mapping[str, Mapping[str, Any]]
    split: SplitRule
    statistics: Mapping[str, Any]

    @property
    def impressions(self) -> str:
        """The section of what was shown: "impressions" or "requests"."""
        return "impressions" if "impressions" in self.files else "requests"

    def error(self, where: str, problem: str) -> InputError:
        """Returns an error of one line that names the file and a place."""
        place = f" {where}:" if where else ""
        return InputError(f"{self.path}:{place} {problem}".replace("\n", " "))


def read_schema_file(path: Path) -> SchemaFile:
    """Reads and checks a schema file.

    Raises:
        InputError: If it is not as documented.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    try:
        return _schema_file(path, values)
    except InputError as error:
        line = f"{path}: {error}".replace("\n", " ")
        raise InputError(line) from error


def _schema_file(path: Path, values: dict[str, Any]) -> SchemaFile:
    check_keys("", values, _TOP, ["behaviors", *_ID_KINDS[1:3], "split"])
    time_zone = _time_zone(values)
    if ("impressions" in values) == ("requests" in values):
        raise InputError(
            "there must be either [impressions], one row a candidate, or "
            "[requests], one row a request with lists of candidates"
        )
    shown = "impressions" if "impressions" in values else "requests"
    if values["behaviors"] == shown:
        del values["behaviors"]
    elif isinstance(values["behaviors"], str):
        raise InputError(
            f'`behaviors` must be "{shown}" or the section [behaviors]'
        )
    files = {
        name: _files_entry(name, values[name])
        for name in _SECTIONS
        if name in values
    }
    if "items" in files and files[shown].item is None:
        raise InputError(
            f"{shown}: `item` is missing: which column names a row of [items]"
        )
    for name, entry in files.items():
        if entry.item is not None and "items" not in files:
            raise InputError(f"{name}: `item` needs a section [items]")
    fields, tables = _fields_and_tables(values, files)
    return SchemaFile(
        path=path,
        time_zone=time_zone,
        time_fields=_time_fields(values.get("time_fields", [])),
        files=files,
        fields=fields,
        tables=tables,
        split=_split(values["split"], time_zone),
        statistics=values.get("statistics", {}),
    )


def _time_zone(values: Mapping[str, Any]) -> TimeZone:
    """Returns the data set's time zone, which one of three keys says."""
    given = [name for name in (*_OFFSETS, "time_zone") if name in values]
    if len(given) > 1:
        raise InputError(f"only one of {', '.join(given)} can be given")
    if "time_zone" in values:
        try:
            return TimeZone.named(values["time_zone"])
        except InputError as error:
            raise InputError(f"`time_zone`: {error}") from error
    for name in given:
        unit, minutes = _OFFSETS[name]
        least, most = (bound // minutes for bound in MINUTES)
        offset = values[name]
        # To Python a bool is an int.
        if type(offset) is not int or not least <= offset <= most:
            raise InputError(
                f"`{name}` must be whole {unit} from {least} to {most}. "
                f"Received: {offset!r}"
            )
        return TimeZone.fixed(minutes * offset)
    return UTC


def _time_fields(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(
        isinstance(name, str) for name in names
    ):
        raise InputError(
            f"`time_fields` must be a list of texts. Received: {names!r}"
        )
    try:
        check_time_fields(names)
    except ValueError as error:
        raise InputError(f"`time_fields`: {error}") from error
    return tuple(names)


def check_keys(
    where: str, values: Any, keys: Keys, required: Iterable[str] = ()
) -> None:
    """Checks that a section has some keys and no others.

    Args:
        where: Name of the section; empty for the top of the file.
        values: What stands there.
        keys: The keys that there are.
        required: Those that may not be absent.
    """
    if not isinstance(values, dict):
        raise InputError(f"`{where}` must be a section, [{where}]")
    place = f"{where}: " if where else ""
    for name, value in values.items():
        if name not in keys:
            raise InputError(
                f"{place}unknown key {name!r}; known are {', '.join(keys)}."
                + did_you_mean(name, keys)
            )
        kind = keys[name]
        if isinstance(kind, tuple):
            is_valid, expected = value in kind, f"one of {', '.join(kind)}"
        elif kind is not None:
            # To Python a bool is an int.
            is_valid, expected = type(value) is kind, _TYPES[kind]
        else:
            continue
        if not is_valid:
            raise InputError(
                f"{place}`{name}` must be {expected}. Received: {value!r}"
            )
    for name in required:
        if name not in values:
            raise InputError(f"{place}`{name}` is missing")


def _files_entry(section: str, values: Any) -> FilesEntry:
    keys = _SECTIONS[section]
    required = ["files", "user", "time", "label"]
    if section == "items":
        required = ["files", "item"]
    check_keys(
        section, values, keys, [name for name in required if name in keys]
    )
    files = values["files"]
    names = [files] if isinstance(files, str) else files
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise InputError(
            f"{section}: `files` must be a path or a list of paths. "
            f"Received: {files!r}"
        )
    return FilesEntry(**{**values, "section": section, "files": tuple(names)})


def _fields_and_tables(
    top: Mapping[str, Any], files: Mapping[str, FilesEntry]
) -> tuple[tuple[FieldEntry, ...], dict[str, dict[str, Any]]]:
    fields = [
        _field(kind, name, value, files)
        for kind in _FIELD_KINDS
        for name, value in top.get(kind, {}).items()
    ]
    tables = top.get("tables", {})
    for name, values in tables.items():
        _check_table(f"tables.{name}", values)
    # A misspelled name would silently be a table that nothing shares.
    names = {f.name for f in fields if f.table == f.name} | tables.keys()
    used = {field.table for field in fields}
    for field in fields:
        if field.table and field.table not in names:
            raise InputError(
                f"{field.where}: there is no embedding table {field.table!r}: "
                f"give it a section [tables.{field.table}], or name one of "
                f"{', '.join(sorted(names))}."
                + did_you_mean(field.table, names)
            )
    for name in tables:
        if name not in used:
            raise InputError(
                f"tables: no field has the table {name!r}; the fields have "
                f"{', '.join(sorted(used - {''}))}." + did_you_mean(name, used)
            )
    return tuple(fields), {
        name: tables.get(name, {}) for name in sorted(used - {""})
    }


def _check_table(where: str, values: Any) -> None:
    check_keys(where, values, _TABLE)
    is_hashed = values.get("kind") == "hashed"
    if is_hashed and "size" not in values:
        raise InputError(f"{where}: a hashed table needs a `size`")
    # A vocabulary is as large as what the training period shows.
    excess = "min_count" if is_hashed else "size"
    if excess in values:
        kind = "hashed table" if is_hashed else "vocabulary"
        raise InputError(f"{where}: `{excess}` does not apply to a {kind}")
    for key, least in (("size", 3), ("min_count", 1)):
        if values.get(key, least) < least:
            raise InputError(f"{where}: `{key}` must be at least {least}")


def _field(
    kind: str, name: str, value: Any, files: Mapping[str, FilesEntry]
) -> FieldEntry:
    where = f"{kind}.{name}"
    values: Any = {"column": value} if isinstance(value, str) else value
    keys: Keys = {"column": str, "table": str}
    if kind in _NUMBER_KINDS:
        keys = {"column": str, "transform": ("identity", "log1p")}
    elif kind != "training_fields":
        keys = {**keys, "max_values": int, "separator": str}
    check_keys(where, values, keys, ["column"])
    if values.get("max_values", 1) < 1:
        raise InputError(f"{where}: `max_values` must be at least 1")
    if "separator" in values and "max_values" not in values:
        raise InputError(
            f"{where}: a `separator` makes a set: give `max_values` too"
        )
    if name in _RESERVED:
        raise InputError(
            f"{where}: no field can be called {name!r}, as a column of the "
            "store or of a batch is. Give it another name."
        )
    source, _, column = values["column"].partition(".")
    known = _sections_of(kind, files)
    if not column or source not in known:
        raise InputError(
            f"{where}: a column is written as TABLE.COLUMN, where TABLE is "
            f"{' or '.join(known)}. Received: {values['column']!r}"
            + did_you_mean(source, known)
        )
    for answer in ("label", "weight"):
        # The weight of a thinned log tells clicks from the rest.
        is_answer = column == getattr(files[source], answer)
        if is_answer and not kind.startswith("behavior"):
            raise InputError(
                f"{where}: the column {column!r} is the {answer} of "
                f"[{source}], the answer itself: only a behavior field may "
                "come from it"
            )
    return FieldEntry(
        kind=kind,
        name=name,
        section=source,
        column=column,
        table=values.get("table", name) if "table" in keys else "",
        **{
            key: values[key]
            for key in ("transform", "max_values", "separator")
            if key in values
        },
    )


def _sections_of(kind: str, files: Mapping[str, FilesEntry]) -> list[str]:
    """Returns the tables of files that fields of a kind can come from."""
    shown = "impressions" if "impressions" in files else "requests"
    if kind.startswith("user"):
        known = ["users", shown]
    elif kind == "training_fields":
        known = [shown]
    elif not kind.startswith("behavior") or "behaviors" not in files:
        known = [shown, "items"]
    elif files["behaviors"].item is None:
        known = ["behaviors"]
    else:
        known = ["behaviors", "items"]
    return [name for name in known if name in files]


def _split(values: Any, time_zone: TimeZone) -> SplitRule:
    check_keys("split", values, _SPLIT)
    if len(values) != 1:
        raise InputError(f"split: one of {', '.join(_SPLIT)} must be given")
    ((key, value),) = values.items()
    if key == "last_day":
        if value is not True:
            raise InputError("split: `last_day` can only be true")
        return LastDay(time_zone=time_zone)
    if key == "last_fraction":
        if type(value) is not float or not 0.0 < value < 1.0:
            raise InputError(
                "split: `last_fraction` must be a number between 0 and 1, "
                f"such as 0.1. Received: {value!r}"
            )
        return LastFraction(fraction=1.0 - value)
    if not isinstance(value, datetime.date):
        raise InputError(
            "split: `test_start` must be a date such as 2026-03-01, or a date "
            f"with a time, without quotes. Received: {value!r}"
        )
    if not isinstance(value, datetime.datetime):
        time = time_zone.start_of_day(value)
        rule = describe_day(time, time_zone)
    else:
        if value.tzinfo is None:
            value = time_zone.attach(value)
        time = int(value.timestamp())
        rule = f"from {value} on for test"
    if not 0 < time < LATEST_TIME:
        raise InputError("split: `test_start` must be between 1970 and 2100")
    return FromTime(time=time, rule=rule)
