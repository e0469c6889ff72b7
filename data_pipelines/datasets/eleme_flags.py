"""The flags of `data_pipelines.prepare` that only Ele.me has."""

import datetime
from typing import Any

from absl import flags

from data_pipelines.datasets.eleme import ElemeOptions
from data_pipelines.datasets.eleme_history import TIMEDIFF_UNITS
from sparsectr.errors import InputError


def define_eleme_flags() -> None:
    """Defines the flags that only Ele.me has."""
    default = ElemeOptions()
    for name, use in (("train_days", "train"), ("test_days", "test")):
        days = ",".join(map(str, getattr(default, name)))
        flags.DEFINE_list(
            name,
            None,
            f"Days to {use} on, numbers from 1 to 8; the default is {days}. "
            "Ele.me alone.",
        )
    flags.DEFINE_string(
        "first_day",
        None,
        f"The date of day 1, UTC+8; the default is {default.first_day}. "
        "Ele.me alone.",
    )
    flags.DEFINE_enum(
        "timediff_unit",
        None,
        list(TIMEDIFF_UNITS),
        "Unit of timediff_list, which is not documented; the default is "
        f"{default.timediff_unit}. Ele.me alone.",
    )
    flags.DEFINE_boolean(
        "drop_corrupted_rows",
        None,
        "Drop and count rows whose label, day or history is not as "
        "documented, where the default is to refuse them. Ele.me alone.",
    )


def eleme_options(values: Any) -> ElemeOptions | None:
    """Returns what the flags say; `None` if none of them was given."""
    given: dict[str, Any] = {
        name: values[name].value
        for name in ("timediff_unit", "drop_corrupted_rows")
    }
    given["first_day"] = date_of("first_day", values.first_day)
    for name in ("train_days", "test_days"):
        days = values[name].value
        if days is not None and not all(day.isdecimal() for day in days):
            raise InputError(
                f"--{name} must be numbers such as 6,7. "
                f"Received: {','.join(days)}"
            )
        given[name] = None if days is None else tuple(map(int, days))
    given = {name: value for name, value in given.items() if value is not None}
    return ElemeOptions(**given) if given else None


def date_of(flag: str, text: str | None) -> datetime.date | None:
    """Returns the date that a flag says; `None` if it is not given.

    Raises:
        InputError: If it is none.
    """
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"--{flag} must be a date such as 2022-04-30. Received: {text}"
        ) from error
