"""The data-set schema: which fields exist, and which share a table.

Everything that depends on field names reads them from a `DatasetSchema`:
the preparation writes it into the store's manifest, the reader and the
model are built from it, the export stores it beside the graph. Nothing
here imports TensorFlow.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from sparsectr.errors import did_you_mean
from sparsectr.statistic import Statistic, statistic_from_dict
from sparsectr.time_fields import check_time_fields, time_tables

# For those who check the times of a schema's data.
from sparsectr.time_zone import LATEST_TIME as LATEST_TIME
from sparsectr.time_zone import UTC, TimeZone

PADDING_ID = 0
"""Id of padding and of a missing value, in every table."""

OUT_OF_VOCABULARY_ID = 1
"""Id of a value that the training period did not show often enough."""

NUM_RESERVED_IDS = 2
"""First id of a real value."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _check_count(what: str, value: int, least: int, table: str) -> None:
    if type(value) is not int or value < least:
        raise ValueError(
            f"`{what}` must be a whole number of at least {least}. "
            f"Received: {what}={value!r} (table {table!r})"
        )


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"`{what}` must be lower-case letters, digits and underscores. "
            f"Received: {what}={name!r}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One embedding table and how raw values become its row numbers.

    Args:
        name: Name of the table, unique in its schema.
        kind: "vocabulary" for a frozen list of the values that the training
            period showed at least `min_count` times; "hashed" for values
            hashed into `size - 2` rows.
        size: Number of rows, the two reserved ones included. `None` for a
            vocabulary that has not been built yet.
        min_count: Occurrences in the training period that a value needs to
            get a row of its own. Vocabularies only.
        value_type: "int" or "string", the type of the raw values.

    Raises:
        ValueError: If a value is out of range or the kinds do not fit.
    """

    name: str
    kind: Literal["vocabulary", "hashed"] = "vocabulary"
    size: int | None = None
    min_count: int = 1
    value_type: Literal["int", "string"] = "int"

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.kind not in ("vocabulary", "hashed"):
            raise ValueError(
                '`kind` must be "vocabulary" or "hashed". '
                f"Received: kind={self.kind!r} (table {self.name!r})"
            )
        if self.value_type not in ("int", "string"):
            raise ValueError(
                '`value_type` must be "int" or "string". '
                f"Received: value_type={self.value_type!r} "
                f"(table {self.name!r})"
            )
        if self.kind == "hashed" and self.size is None:
            raise ValueError(
                f"A hashed table needs a `size` (table {self.name!r})."
            )
        if self.size is not None:
            _check_count("size", self.size, NUM_RESERVED_IDS, self.name)
        _check_count("min_count", self.min_count, 1, self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoricalField:
    """An id feature, or a set of ids.

    Args:
        name: Name without its prefix: `brand` is the tensor
            `candidate_brand` among candidates, `behavior_brand` in a history.
        table: Name of the table its ids index. Fields that mean the same
            thing name the same table.
        max_values: `None` for one id. A number makes it a set, whose tensor
            has one more axis, padded with 0, and whose embedding is the mean
            of those of its ids; of more values the first so many are kept.
    """

    name: str
    table: str
    max_values: int | None = None

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.max_values is not None:
            _check_count("max_values", self.max_values, 1, self.table)

    @property
    def is_set(self) -> bool:
        """Whether it has any number of ids."""
        return self.max_values is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseField:
    """A number: a float feature. The model applies the transform.

    The model sees `(f(x) - mean) / scale`, and 0 for a missing value (NaN).

    Args:
        name: Name without its prefix.
        transform: `f`: "identity", or "log1p" for `log(1 + max(x, 0))`.
        mean: Mean of `f(x)` over the training period: the requests of a user
            field, the behaviors or the candidates.
        scale: Standard deviation likewise.
    """

    name: str
    transform: Literal["identity", "log1p"] = "identity"
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.transform not in ("identity", "log1p"):
            raise ValueError(
                '`transform` must be "identity" or "log1p". Received: '
                f"transform={self.transform!r} (field {self.name!r})"
            )
        if not self.scale > 0.0:
            raise ValueError(
                f"`scale` must be positive. Received: scale={self.scale} "
                f"(field {self.name!r})"
            )


Prefix = Literal["user", "behavior", "candidate"]

PREFIXES: tuple[Prefix, ...] = ("user", "behavior", "candidate")
"""Whose a field is; begins the name of its tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSchema:
    """The fields of one data set.

    Args:
        name: Name of the data set.
        tables: The embedding tables.
        user_fields: Ids and sets of ids of the user, or of the request.
        behavior_fields: Those of a behavior, beside its time.
        candidate_fields: Those of a candidate.
        user_dense_fields: Numbers of the user, or of the request.
        behavior_dense_fields: Numbers of a behavior.
        candidate_dense_fields: Numbers of a candidate.
        training_fields: Ids of a candidate that only a log has, such as the
            position at which it was shown. A model learns what they add to
            the logit, and leaves it out of every score.
        has_weight: Whether a candidate has a weight in the loss.
        negative_rate: Share of the negatives that the log kept of those that
            were shown. Probabilities that are served are those of all.
        time_zone: The data set's own, which decides what an hour, a day and a
            weekend are.
        time_fields: Names of the fields that the model computes from times;
            see `sparsectr.time_fields`.

        statistics: Where some of the candidates' numbers come from: each of
            theirs is counted and not read.

    Raises:
        ValueError: If names repeat, a field names an unknown table, behaviors
            or candidates have no id, or a statistic is of an unknown field or
            its numbers are none of the candidates'.
    """

    name: str
    tables: tuple[Table, ...]
    user_fields: tuple[CategoricalField, ...]
    behavior_fields: tuple[CategoricalField, ...]
    candidate_fields: tuple[CategoricalField, ...]
    user_dense_fields: tuple[DenseField, ...] = ()
    behavior_dense_fields: tuple[DenseField, ...] = ()
    candidate_dense_fields: tuple[DenseField, ...] = ()
    training_fields: tuple[CategoricalField, ...] = ()
    has_weight: bool = False
    negative_rate: float = 1.0
    time_zone: TimeZone = UTC
    time_fields: tuple[str, ...] = ()
    statistics: tuple[Statistic, ...] = ()

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        tables = [table.name for table in self.tables]
        check_time_fields(self.time_fields)
        _check_unique("tables", [*tables, *time_tables(self.time_fields)])
        for kind in _ID_KINDS:
            fields: tuple[CategoricalField, ...] = getattr(self, kind)
            for field in fields:
                if field.table not in tables:
                    raise ValueError(
                        f"Field {field.name!r} of `{kind}` names the table "
                        f"{field.table!r}, which is not among {tables}."
                    )
        for prefix in PREFIXES:
            extra = self.training_fields if prefix == "candidate" else ()
            _check_unique(
                f"{prefix}_fields",
                [f.name for f in (*self.ids(prefix), *extra)]
                + [f.name for f in self.numbers(prefix)],
            )
        if not self.behavior_fields or not self.candidate_fields:
            raise ValueError(
                "`behavior_fields` and `candidate_fields` must each have at "
                f"least one field. Received: {len(self.behavior_fields)} and "
                f"{len(self.candidate_fields)}"
            )
        if all(field.is_set for field in self.candidate_fields):
            raise ValueError(
                "`candidate_fields` must have an id that tells candidates "
                "apart, and not sets alone."
            )
        self._check_training()
        self._check_statistics()

    def _check_training(self) -> None:
        own = {field.table for field in self.training_fields}
        others = {f.table for prefix in PREFIXES for f in self.ids(prefix)}
        for field in self.training_fields:
            if field.is_set:
                raise ValueError(
                    f"Field {field.name!r} of `training_fields` cannot be a "
                    "set."
                )
        if own & others:
            raise ValueError(
                "What only a log has shares no table with what is served. "
                f"Shared: {', '.join(sorted(own & others))}"
            )
        if not 0.0 < self.negative_rate <= 1.0:
            raise ValueError(
                "`negative_rate` must be above 0 and at most 1. Received: "
                f"negative_rate={self.negative_rate!r}"
            )
        if self.has_weight and self.negative_rate < 1.0:
            raise ValueError(
                "Weights undo a sampling of negatives, and so does "
                "`negative_rate`: both would undo it twice."
            )

    def _check_statistics(self) -> None:
        _check_unique("statistics", [s.name for s in self.statistics])
        names = {"user_id"}
        names |= {f"user.{f.name}" for f in self.user_fields if not f.is_set}
        names |= {
            f"candidate.{f.name}" for f in self.candidate_fields if not f.is_set
        }
        dense = {f.name: f.transform for f in self.candidate_dense_fields}
        for statistic in self.statistics:
            for name in statistic.fields:
                if name not in names:
                    raise ValueError(
                        f"Statistic {statistic.name!r} is of {name!r}, which "
                        f"is not among {sorted(names)}: it must be an id, and "
                        "no set or number."
                    )
            for number in statistic.numbers:
                if dense.get(number.name) != number.transform:
                    raise ValueError(
                        f"Statistic {statistic.name!r} needs a dense field "
                        f"{number.name!r} with transform {number.transform!r}."
                    )

    def with_statistics(self, statistics: Sequence[Statistic]) -> Self:
        """Returns a copy with more statistics, and dense fields for them."""
        return dataclasses.replace(
            self,
            statistics=(*self.statistics, *statistics),
            candidate_dense_fields=(
                *self.candidate_dense_fields,
                *(
                    DenseField(name=number.name, transform=number.transform)
                    for statistic in statistics
                    for number in statistic.numbers
                ),
            ),
        )

    def without_statistics(self) -> Self:
        """Returns a copy with the logged dense fields alone."""
        return dataclasses.replace(
            self,
            statistics=(),
            candidate_dense_fields=self.logged_dense_fields,
        )

    @property
    def logged_dense_fields(self) -> tuple[DenseField, ...]:
        """The dense fields that the raw tables have: all but statistics."""
        counted = {n.name for s in self.statistics for n in s.numbers}
        return tuple(
            field
            for field in self.candidate_dense_fields
            if field.name not in counted
        )

    def ids(self, prefix: Prefix) -> tuple[CategoricalField, ...]:
        """Returns the ids and sets of users, behaviors or candidates."""
        found: tuple[CategoricalField, ...] = getattr(self, f"{prefix}_fields")
        return found

    def numbers(self, prefix: Prefix) -> tuple[DenseField, ...]:
        """Returns the numbers of users, behaviors or candidates."""
        found: tuple[DenseField, ...] = getattr(self, f"{prefix}_dense_fields")
        return found

    def without(self, names: Sequence[str]) -> Self:
        """Returns a copy without some fields, and without their tables.

        Args:
            names: Tensors, as `candidate_brand`; time fields by their names;
                `statistics.<name>`; `statistics` or `time_fields` for all.

        Raises:
            ValueError: If there is no such field, or too few are left.
        """
        if not names:
            return self
        known = {"statistics", "time_fields", *self.time_fields}
        known |= {f"statistics.{s.name}" for s in self.statistics}
        counted = {n.name for s in self.statistics for n in s.numbers}
        fields: dict[str, Any] = {}
        gone = set(names)
        for statistic in self.statistics:
            if gone & {"statistics", f"statistics.{statistic.name}"}:
                gone |= {f"candidate_{n.name}" for n in statistic.numbers}
        for kind in (*_ID_KINDS, *_DENSE_KINDS):
            prefix = "candidate" if kind == "training_fields" else kind
            prefix = prefix.split("_")[0]
            own = {f"{prefix}_{f.name}": f for f in getattr(self, kind)}
            known |= {
                n for n in own if n.removeprefix("candidate_") not in counted
            }
            fields[kind] = tuple(f for n, f in own.items() if n not in gone)
        unknown = sorted(set(names) - known)
        if unknown:
            raise ValueError(
                f"There is no field {unknown[0]!r} to leave out."
                + did_you_mean(unknown[0], known)
            )
        used = {f.table for kind in _ID_KINDS for f in fields[kind]}
        return dataclasses.replace(
            self,
            **fields,
            tables=tuple(t for t in self.tables if t.name in used),
            time_fields=tuple(
                name
                for name in self.time_fields
                if not gone & {name, "time_fields"}
            ),
            statistics=tuple(
                s
                for s in self.statistics
                if not gone & {"statistics", f"statistics.{s.name}"}
            ),
        )

    def table(self, name: str) -> Table:
        """Returns the table called `name`."""
        for table in self.tables:
            if table.name == name:
                return table
        raise ValueError(
            f"No table {name!r} in schema {self.name!r}. "
            f"Tables: {[table.name for table in self.tables]}"
        )

    @property
    def served_tables(self) -> tuple[Table, ...]:
        """The tables of all fields but those that only training knows."""
        own = {field.table for field in self.training_fields}
        return tuple(table for table in self.tables if table.name not in own)

    @property
    def is_resolved(self) -> bool:
        """Whether every table has its size."""
        return all(table.size is not None for table in self.tables)

    def with_table_sizes(self, sizes: Mapping[str, int]) -> "DatasetSchema":
        """Returns a copy whose tables named in `sizes` have those sizes."""
        tables = tuple(
            dataclasses.replace(t, size=sizes.get(t.name, t.size))
            for t in self.tables
        )
        return dataclasses.replace(self, tables=tables)

    def to_json(self) -> str:
        """Returns the schema as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetSchema":
        """Returns the schema that `json.loads(schema.to_json())` describes.

        Raises:
            ValueError: If a key is missing, unknown, or has a bad value.
        """
        parts: dict[str, Callable[..., Any]] = {
            "tables": Table,
            **dict.fromkeys(_ID_KINDS, CategoricalField),
            **dict.fromkeys(
                (f"{p}_dense_fields" for p in PREFIXES), DenseField
            ),
            "statistics": statistic_from_dict,
        }
        arguments = dict(values)
        try:
            for key, part in parts.items():
                if key in arguments:
                    arguments[key] = tuple(part(**v) for v in arguments[key])
            if "time_fields" in arguments:
                arguments["time_fields"] = tuple(arguments["time_fields"])
            if "time_zone" in arguments:
                arguments["time_zone"] = TimeZone.from_dict(
                    arguments["time_zone"]
                )
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"Not a data-set schema: {error}") from error


def field_width(
    schema: DatasetSchema, prefix: Prefix, embedding_dim: int
) -> int:
    """Returns how wide the fields of a user, behavior or candidate are.

    Args:
        schema: The fields.
        prefix: Whose.
        embedding_dim: Width of every table.
    """
    numbers = len(schema.numbers(prefix))
    return len(schema.ids(prefix)) * embedding_dim + numbers


_ID_KINDS = (*(f"{prefix}_fields" for prefix in PREFIXES), "training_fields")
_DENSE_KINDS = tuple(f"{prefix}_dense_fields" for prefix in PREFIXES)


def _check_unique(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"Names in `{what}` repeat: {', '.join(repeated)}")
