"""Which requests before the test are the validation: the newest ones."""

import datetime

from data_pipelines.raw.split_rule import FromTime, LastFraction, SplitRule
from sparsectr.errors import InputError
from sparsectr.time_zone import TimeZone

FRACTION = 0.1


def validation_rule(
    moment: str | None, fraction: float | None, time_zone: TimeZone
) -> SplitRule | None:
    """Returns the rule that is asked for.

    Args:
        moment: First moment of the validation, in ISO 8601; without a time
            zone, it is of the data set's own.
        fraction: Share of the requests before the test, at least.
        time_zone: That of the data set.

    Returns:
        The rule, which reads times before the test; `None` if neither is
        given.

    Raises:
        InputError: If both are given, or one is none.
    """
    if moment is not None and fraction is not None:
        raise InputError(
            "--validation_time and --validation_fraction exclude each other."
        )
    if fraction is not None:
        if not 0.0 < fraction < 1.0:
            raise InputError(
                "--validation_fraction must be between 0 and 1. "
                f"Received: {fraction}"
            )
        return newest(fraction)
    if moment is None:
        return None
    try:
        time = datetime.datetime.fromisoformat(moment)
    except ValueError as error:
        raise InputError(
            "--validation_time must be a date such as 2022-04-29, or a date "
            f"with a time such as 2022-04-29T18:00. Received: {moment}"
        ) from error
    if time.tzinfo is None:
        time = time_zone.attach(time)
    return FromTime(
        time=int(time.timestamp()), rule=f"from {time} on for validation"
    )


def newest(fraction: float = FRACTION) -> LastFraction:
    """Returns the rule for the newest of the requests before the test."""
    return LastFraction(
        fraction=1.0 - fraction, noun="requests before the test"
    )
