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

from sparsectr.statistic import Statistic, statistic_from_dict

PADDING_ID = 0
"""Id of padding and of a missing value, in every table."""

OUT_OF_VOCABULARY_ID = 1
"""Id of a value that the training period did not show often enough."""

NUM_RESERVED_IDS = 2
"""First id of a real value."""

LATEST_TIME = 4_102_444_800
"""Unix seconds of the year 2100: from it on a time is not in seconds."""

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
            period showed at least `min_count` times; "hashed" for integer
            values hashed into `size - 2` rows.
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
        if self.kind == "hashed" and self.value_type != "int":
            raise ValueError(
                "Only integer values can be hashed; use a vocabulary for "
                f"strings (table {self.name!r})."
            )
        if self.size is not None:
            _check_count("size", self.size, NUM_RESERVED_IDS, self.name)
        _check_count("min_count", self.min_count, 1, self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoricalField:
    """An id feature.

    Args:
        name: Name without its prefix: `brand` is the tensor
            `candidate_brand` among candidates, `behavior_brand` in a history.
        table: Name of the table its ids index. Fields that mean the same
            thing name the same table.
    """

    name: str
    table: str

    def __post_init__(self) -> None:
        _check_name("name", self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseField:
    """A float feature of a candidate. The model applies the transform.

    The model sees `(f(x) - mean) / scale`, and 0 for a missing value (NaN).

    Args:
        name: Name without its prefix.
        transform: `f`: "identity", or "log1p" for `log(1 + max(x, 0))`.
        mean: Mean of `f(x)` over the training candidates.
        scale: Standard deviation of `f(x)` over the training candidates.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSchema:
    """The fields of one data set.

    Args:
        name: Name of the data set.
        tables: The embedding tables.
        user_fields: Profile fields, one id for each user.
        behavior_fields: Fields of a behaviour, beside its time.
        candidate_fields: Id fields of a candidate.
        candidate_dense_fields: Float fields of a candidate.
        utc_offset_hours: The data set's own time zone, which decides what a
            weekend is.
        statistics: Where some of the dense fields come from: each of their
            numbers is one, and is counted and not read.

    Raises:
        ValueError: If names repeat, a field names an unknown table, or
            behaviours or candidates have no field, or a statistic is of an
            unknown field or its numbers are no dense fields.
    """

    name: str
    tables: tuple[Table, ...]
    user_fields: tuple[CategoricalField, ...]
    behavior_fields: tuple[CategoricalField, ...]
    candidate_fields: tuple[CategoricalField, ...]
    candidate_dense_fields: tuple[DenseField, ...] = ()
    utc_offset_hours: int = 0
    statistics: tuple[Statistic, ...] = ()

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        tables = [table.name for table in self.tables]
        _check_unique("tables", tables)
        for kind in ("user_fields", "behavior_fields", "candidate_fields"):
            fields: tuple[CategoricalField, ...] = getattr(self, kind)
            for field in fields:
                if field.table not in tables:
                    raise ValueError(
                        f"Field {field.name!r} of `{kind}` names the table "
                        f"{field.table!r}, which is not among {tables}."
                    )
        _check_unique("user_fields", [f.name for f in self.user_fields])
        _check_unique("behavior_fields", [f.name for f in self.behavior_fields])
        _check_unique(
            "candidate_fields",
            [f.name for f in self.candidate_fields]
            + [f.name for f in self.candidate_dense_fields],
        )
        if not self.behavior_fields or not self.candidate_fields:
            raise ValueError(
                "`behavior_fields` and `candidate_fields` must each have at "
                f"least one field. Received: {len(self.behavior_fields)} and "
                f"{len(self.candidate_fields)}"
            )
        offset = self.utc_offset_hours
        # To Python a bool is an int, and 5.5 lies between the two.
        if type(offset) is not int or not -12 <= offset <= 14:
            raise ValueError(
                "`utc_offset_hours` must be whole hours from -12 to 14. "
                f"Received: utc_offset_hours={offset!r}"
            )
        self._check_statistics()

    def _check_statistics(self) -> None:
        _check_unique("statistics", [s.name for s in self.statistics])
        names = {"user_id"}
        names |= {f"user.{field.name}" for field in self.user_fields}
        names |= {f"candidate.{field.name}" for field in self.candidate_fields}
        dense = {f.name: f.transform for f in self.candidate_dense_fields}
        for statistic in self.statistics:
            for name in statistic.fields:
                if name not in names:
                    raise ValueError(
                        f"Statistic {statistic.name!r} is of {name!r}, which "
                        f"is not among {sorted(names)}."
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
            "user_fields": CategoricalField,
            "behavior_fields": CategoricalField,
            "candidate_fields": CategoricalField,
            "candidate_dense_fields": DenseField,
            "statistics": statistic_from_dict,
        }
        arguments = dict(values)
        try:
            for key, part in parts.items():
                if key in arguments:
                    arguments[key] = tuple(part(**v) for v in arguments[key])
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"Not a data-set schema: {error}") from error


def _check_unique(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"Names in `{what}` repeat: {', '.join(repeated)}")
