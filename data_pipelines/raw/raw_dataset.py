"""What a data set's own module says of its raw files."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import SplitRule
from data_pipelines.stores.shard import logged_numbers, stored_ids
from data_pipelines.stores.vocabulary import arrow_type
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema, Prefix

EXACT_TIME = "__exact_time"
"""Column of integers that order rows as their times do, finer than seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeBehaviors:
    """Behaviors of some users, made from their impressions.

    Args:
        table: `user_id`, `time` and the behavior fields.
        dropped: Behaviors that were left out, by reason.
        incomplete: Behaviors kept though something is wrong, by reason.
    """

    table: pa.Table
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    incomplete: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawDataset:
    """Raw tables of impressions, behaviors, users and items.

    Columns hold raw values, a missing one is null, rows come in any order. A
    set is a list of values, a number is float32. Training fields and `weight`
    are columns of a candidate too. Impressions and behaviors whose files tell
    less than a second apart have a column `EXACT_TIME`. Nothing is read yet.

    Args:
        schema: Fields of the data set; the tables have no size yet.
        impressions: One row a candidate: `user_id` (int64 or string), `time`
            (int64, Unix seconds), `request` (rows of one user that are equal
            in it form one request, at the earliest time of its rows; it
            orders requests of equal times), `label` (0 or 1) and the
            candidate fields, of which `items` may have some, and the user
            fields that `users` does not have.
        behaviors: `user_id`, `time` and the behavior fields, of which `items`
            may have some if there is `item_key` too; or a function of a
            module that makes such a table from the impressions of some
            users, with the fields of items.
        users: `user_id`, unique, and user fields. A field called `user_id`
            is that same column.
        items: `item_key`, unique, and fields that impressions with that key
            have in common.
        item_key: Name of that column, which impressions have too.
        split: Which requests are for test.
        unique_impressions: Columns in which a later row may not equal an
            earlier one, or it is dropped.
        unique_behaviors: Whether a behavior that equals an earlier one in
            everything is dropped.
        nouns: What the data set calls a row of impressions, and an item.
        data_source: What the files are, as manifest and results say it.
    """

    schema: DatasetSchema
    impressions: RawTable
    behaviors: RawTable | Callable[[pa.Table], MadeBehaviors]
    users: RawTable | None = None
    items: RawTable | None = None
    item_key: str = "item_id"
    split: SplitRule
    unique_impressions: tuple[str, ...] = ()
    unique_behaviors: bool = False
    nouns: tuple[str, str] = ("candidates", "an item")
    data_source: str = "raw files"

    @property
    def tables(self) -> tuple[RawTable, ...]:
        """The raw tables that there are."""
        found = (self.impressions, self.behaviors, self.users, self.items)
        return tuple(table for table in found if isinstance(table, RawTable))

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """All raw files."""
        return tuple(s for table in self.tables for s in table.sources)

    def with_time_fields(self, names: Sequence[str]) -> "RawDataset":
        """Returns a copy whose schema has the time fields of a flag.

        Raises:
            InputError: If one is unknown, or there twice.
        """
        try:
            schema = dataclasses.replace(self.schema, time_fields=tuple(names))
        except ValueError as error:
            raise InputError(f"--time_fields: {error}") from error
        return dataclasses.replace(self, schema=schema)

    def check(self) -> None:
        """Checks names and types of the columns of every table.

        Raises:
            ValueError: If a column is absent or of another type.
        """
        impressions = self.impressions.empty.schema
        joined = {
            name: impressions.field(name).type for name in impressions.names
        }
        user_type = joined.get("user_id")
        if user_type not in (pa.int64(), pa.string()):
            raise ValueError(
                "`impressions` needs a column 'user_id' of type int64 or "
                f"string. Received: {user_type}"
            )
        for extra, key in (
            (self.items, self.item_key),
            (self.users, "user_id"),
        ):
            if extra is None:
                continue
            schema = extra.empty.schema
            if key not in joined or key not in schema.names:
                raise ValueError(
                    f"`impressions` and `{extra.name}` need a column {key!r}."
                )
            if schema.field(key).type != joined[key]:
                raise ValueError(
                    f"Column {key!r} is of type {schema.field(key).type} in "
                    f"`{extra.name}` and {joined[key]} in `impressions`."
                )
            joined |= {n: schema.field(n).type for n in schema.names}
        schema = self.schema
        _check("impressions", joined, {"time": pa.int64(), "label": pa.int64()})
        _check("impressions", joined, self._types("user"))
        _check("impressions", joined, self._types("candidate"))
        if "request" not in joined:
            raise ValueError("`impressions` has no column 'request'.")
        if isinstance(self.behaviors, RawTable):
            found = self.behaviors.empty.schema
            columns = {name: found.field(name).type for name in found.names}
            if self.items is not None and self.item_key in columns:
                items = self.items.empty.schema
                columns = {n: items.field(n).type for n in items.names} | (
                    columns
                )
            _check(
                "behaviors",
                columns,
                {"user_id": user_type, "time": pa.int64()},
            )
            _check("behaviors", columns, self._types("behavior"))

    def _types(self, prefix: Prefix) -> dict[str, pa.DataType]:
        types = {}
        for field in stored_ids(self.schema, prefix):
            value = arrow_type(self.schema.table(field.table))
            types[field.name] = pa.list_(value) if field.is_set else value
        numbers = logged_numbers(self.schema, prefix)
        return types | dict.fromkeys(numbers, pa.float32())


def earlier_impressions(impressions: pa.Table) -> MadeBehaviors:
    """Returns the impressions themselves, where they are the history too."""
    return MadeBehaviors(table=impressions)


def _check(
    table: str,
    found: dict[str, pa.DataType],
    expected: dict[str, pa.DataType],
) -> None:
    for column, column_type in expected.items():
        if column not in found:
            raise ValueError(f"`{table}` has no column {column!r}.")
        if found[column] != column_type:
            raise ValueError(
                f"Column {column!r} of `{table}` must be of type "
                f"{column_type}. Received: {found[column]}"
            )
