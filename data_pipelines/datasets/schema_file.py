"""The schema file of one's own tables: what it says, checked by itself.

`docs/own_tables.md` says what may stand in it. Whether the Parquet files have
what it names is checked in `own_tables.py`.
"""

import dataclasses
import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.datasets.schema_fields import (
    FIELD_KINDS,
    ID_KINDS,
    FieldEntry,
    FilesEntry,
    fields_and_tables,
)
from data_pipelines.datasets.schema_keys import Keys, check_keys
from data_pipelines.raw.split_rule import (
    FromTime,
    LastDay,
    LastFraction,
    SplitRule,
    describe_day,
)
from sparsectr.errors import InputError
from sparsectr.schema import LATEST_TIME
from sparsectr.time_fields import check_time_fields
from sparsectr.time_zone import MINUTES, UTC, TimeZone

TIME_UNITS = {
    "s": ("seconds", 1),
    "ms": ("milliseconds", 10**3),
    "us": ("microseconds", 10**6),
    "ns": ("nanoseconds", 10**9),
}
"""Units in words, and how many are a second."""

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

_TOP: Keys = {
    **dict.fromkeys(_SECTIONS),
    **dict.fromkeys(FIELD_KINDS, dict),
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
    check_keys("", values, _TOP, ["behaviors", *ID_KINDS[1:3], "split"])
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
    fields, tables = fields_and_tables(values, files)
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
