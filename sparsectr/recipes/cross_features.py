"""Which fields of a behavior are of its item, and which of the event.

TWIN tells the two apart: what an item is ("inherent") makes keys, and how a
user met it ("cross") is compressed to numbers. Nothing here imports TensorFlow.
"""

from typing import NamedTuple

from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import GAP_TO_REQUEST, behavior_time_fields


class Column(NamedTuple):
    """A field's columns among those of `RequestEmbedding.behavior_features`.

    Attributes:
        name: The field.
        start: Its first column.
        width: How many it has.
    """

    name: str
    start: int
    width: int


class BehaviorColumns(NamedTuple):
    """The fields of a behavior, in the order of their columns.

    Attributes:
        inherent: Ids and sets whose table a candidate's field shares, and
            numbers whose name one of a candidate's has.
        cross: All others: what is known of a behavior alone, as its type, a
            rating or the seconds watched; and the time fields.
    """

    inherent: tuple[Column, ...]
    cross: tuple[Column, ...]


def behavior_columns(
    schema: DatasetSchema, embedding_dim: int, has_gap: bool
) -> BehaviorColumns:
    """Returns the fields of a behavior, told apart.

    Args:
        schema: The fields.
        embedding_dim: Width of every table.
        has_gap: Whether the time field `gap_to_request` is among them.
    """
    tables = {field.table for field in schema.candidate_fields}
    numbers = {field.name for field in schema.candidate_dense_fields}
    times = [field.name for field in behavior_time_fields(schema.time_fields)]
    times += [GAP_TO_REQUEST] * has_gap
    fields = [
        *(
            (field.name, embedding_dim, field.table in tables)
            for field in schema.behavior_fields
        ),
        *((name, embedding_dim, False) for name in times),
        *(
            (field.name, 1, field.name in numbers)
            for field in schema.behavior_dense_fields
        ),
    ]
    parts: dict[bool, list[Column]] = {True: [], False: []}
    start = 0
    for name, width, is_inherent in fields:
        parts[is_inherent].append(Column(name, start, width))
        start += width
    return BehaviorColumns(tuple(parts[True]), tuple(parts[False]))


def total_width(columns: tuple[Column, ...]) -> int:
    """Returns how many columns some fields have."""
    return sum(column.width for column in columns)
