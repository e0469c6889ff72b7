"""The fields that a schema file names, and the columns they come from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_pipelines.datasets.schema_keys import Keys, check_keys
from sparsectr.errors import InputError, did_you_mean

ID_KINDS = (
    "user_fields",
    "behavior_fields",
    "candidate_fields",
    "training_fields",
)
NUMBER_KINDS = (
    "user_dense_fields",
    "behavior_dense_fields",
    "candidate_dense_fields",
)
FIELD_KINDS = (*ID_KINDS, *NUMBER_KINDS)

_RESERVED = (
    *("user_id", "time", "request", "label", "weight"),
    *("mask", "offset"),
)
"""Columns of the raw tables and of the store, and tensors of the reader."""


_TABLE: Keys = {
    "kind": ("vocabulary", "hashed"),
    "size": int,
    "min_count": int,
    "type": ("int", "string"),
}


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


def fields_and_tables(
    top: Mapping[str, Any], files: Mapping[str, FilesEntry]
) -> tuple[tuple[FieldEntry, ...], dict[str, dict[str, Any]]]:
    """Returns the fields, and what is said of their tables.

    Args:
        top: The whole file.
        files: The tables of files, by section.

    Raises:
        InputError: If a field or a table is not as documented.
    """
    fields = [
        _field(kind, name, value, files)
        for kind in FIELD_KINDS
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
    if kind in NUMBER_KINDS:
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
