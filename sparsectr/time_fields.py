"""Time fields: what a schema can have the model compute from times.

They are ids of small embedding tables, and no inputs: neither stored nor sent,
but computed by the model itself (`sparsectr.ops.time_field_ids`), so that
training and serving have one implementation. Nothing here imports TensorFlow.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sparsectr.errors import did_you_mean
from sparsectr.time_zone import LATEST_TIME

NUM_HOURS = 24
NUM_WEEKDAYS = 7
NUM_LOGS = (LATEST_TIME - 1).bit_length()
"""Values of `floor(log2(seconds))` below the year 2100, from 0 on."""


class TimeField(NamedTuple):
    """A field that is computed from times.

    Attributes:
        name: Its name, which begins with what it is of.
        table: Its embedding table. Hours and weekdays of behaviors and of
            requests mean the same and share theirs.
        num_rows: Rows of that table; the first is that of padding.
    """

    name: str
    table: str
    num_rows: int


TIME_FIELDS = {
    field.name: field
    for field in (
        TimeField("behavior_hour", "time_hour", 1 + NUM_HOURS),
        TimeField("behavior_weekday", "time_weekday", 1 + NUM_WEEKDAYS),
        # The second row is that of a behavior that has none before it.
        TimeField("behavior_gap", "time_gap", 2 + NUM_LOGS),
        TimeField("request_hour", "time_hour", 1 + NUM_HOURS),
        TimeField("request_weekday", "time_weekday", 1 + NUM_WEEKDAYS),
        TimeField("gap_to_request", "time_gap_to_request", 1 + NUM_LOGS),
    )
}
"""All time fields, by name."""

GAP_TO_REQUEST = "gap_to_request"


def check_time_fields(names: Sequence[str]) -> None:
    """Checks that there are time fields of some names.

    Raises:
        ValueError: If one is unknown, or there twice.
    """
    for place, name in enumerate(names):
        if name not in TIME_FIELDS:
            raise ValueError(
                f"there is no time field {name!r}; known are "
                f"{', '.join(TIME_FIELDS)}." + did_you_mean(name, TIME_FIELDS)
            )
        if name in names[:place]:
            raise ValueError(f"the time field {name!r} is there twice")


def behavior_time_fields(names: Sequence[str]) -> tuple[TimeField, ...]:
    """Returns those of a behavior alone, of the time fields of a schema."""
    return _beginning_with("behavior_", names)


def request_time_fields(names: Sequence[str]) -> tuple[TimeField, ...]:
    """Returns those of a request, which all of its candidates get."""
    return _beginning_with("request_", names)


def time_tables(names: Sequence[str]) -> dict[str, int]:
    """Returns the rows of the embedding tables of time fields, by name."""
    fields = [TIME_FIELDS[name] for name in names]
    return {field.table: field.num_rows for field in fields}


def _beginning_with(prefix: str, names: Sequence[str]) -> tuple[TimeField, ...]:
    return tuple(TIME_FIELDS[n] for n in names if n.startswith(prefix))
