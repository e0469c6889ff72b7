"""Numbers of a candidate that the preparation counts in the log itself.

Nothing here imports TensorFlow.
"""

import dataclasses
import re
from typing import Literal

Count = Literal["impressions", "clicks", "rate", "age"]

COUNTS: tuple[Count, ...] = ("impressions", "clicks", "rate", "age")
"""What can be counted; `age` is the only one without a window."""

USER_ID = "user_id"
"""The user's raw id, which need not be a field."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FIELD = re.compile(r"(candidate|user)\.([a-z][a-z0-9_]*)")

_UNITS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
"""Seconds of the units in which spans of time are written."""


@dataclasses.dataclass(frozen=True)
class Number:
    """One of the numbers of a statistic.

    Args:
        name: Name of the dense field.
        count: What it is.
        window: Seconds; `None` for all the time before, and for `age`.
    """

    name: str
    count: Count
    window: int | None

    @property
    def transform(self) -> Literal["identity", "log1p"]:
        """What the model makes of it first."""
        return "identity" if self.count == "rate" else "log1p"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistic:
    """What impressions of all users say of a value, before a request.

        impressions = candidates shown with the value in [end - window, end)
        clicks      = those of them with label 1
        rate        = (clicks + prior * base) / (impressions + prior)
        age         = begin - (begin of the bucket of the first impression)

    where begin = floor(request_time / bucket) * bucket, in Unix seconds,
    end = begin - delay, and base is clicks over impressions of all candidates
    before end, 0.5 before there are any. So nothing at or after the begin of
    the request's bucket is in them, and all requests of a bucket have the
    same. `age` is NaN if there was no impression before end; all are NaN for
    a missing value.

    Args:
        name: Prefix of the numbers: `brand` makes `brand_rate_3d`.
        fields: `candidate.<field>`, or two fields whose values are taken
            together, of which one may be `user.<field>` or `user_id`.
        counts: Which numbers, of `COUNTS`.
        windows: Seconds, multiples of `bucket`; `None` for all.
        bucket: Seconds. Buckets begin at multiples of it, in UTC.
        delay: Seconds until an impression and its label are known; a multiple
            of `bucket`.
        prior: Impressions of rate `base` that are added to `rate`.

    Raises:
        ValueError: If one does not fit.
    """

    name: str
    fields: tuple[str, ...]
    counts: tuple[Count, ...] = ("impressions", "clicks", "rate")
    windows: tuple[int | None, ...] = (None,)
    bucket: int = 3_600
    delay: int = 0
    prior: float = 20.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                "`name` must be lower-case letters, digits and underscores. "
                f"Received: name={self.name!r}"
            )
        self._check_fields()
        if not self.counts or not set(self.counts) <= set(COUNTS):
            raise self._error(
                f"`counts` must be among {', '.join(COUNTS)}",
                counts=self.counts,
            )
        for key, number, least in (
            ("bucket", self.bucket, 1),
            ("delay", self.delay, 0),
        ):
            if type(number) is not int or number < least:
                raise self._error(
                    f"`{key}` must be whole seconds, at least {least}",
                    **{key: number},
                )
        if self.delay % self.bucket:
            raise self._error(
                "`delay` must be a multiple of the bucket of "
                f"{span_text(self.bucket)}",
                delay=self.delay,
            )
        self._check_windows()
        if not 0.0 < self.prior < float("inf"):
            raise self._error("`prior` must be positive", prior=self.prior)
        for key in ("counts", "windows"):
            values: tuple[object, ...] = getattr(self, key)
            if len(set(values)) < len(values):
                raise self._error(f"`{key}` repeats a value", **{key: values})

    def _check_fields(self) -> None:
        kinds = [
            "user" if field == USER_ID else (match[1] if match else None)
            for field in self.fields
            for match in [_FIELD.fullmatch(field)]
        ]
        if None in kinds or len(kinds) not in (1, 2):
            raise self._error(
                "`fields` must be one or two of candidate.<field>, "
                "user.<field> and user_id",
                fields=self.fields,
            )
        if kinds.count("user") == len(kinds) or len(set(self.fields)) < len(
            kinds
        ):
            raise self._error(
                "`fields` must differ, and one must be of the candidate",
                fields=self.fields,
            )

    def _check_windows(self) -> None:
        for window in self.windows:
            if window is None:
                continue
            if type(window) is not int or window < self.bucket:
                raise self._error(
                    "a window is at least as long as the bucket of "
                    f"{span_text(self.bucket)}",
                    window=window,
                )
            if window % self.bucket:
                raise self._error(
                    "a window must be a multiple of the bucket of "
                    f"{span_text(self.bucket)}",
                    window=window,
                )
        if not self.windows and set(self.counts) != {"age"}:
            raise self._error(
                "`windows` are missing; only an age needs none",
                windows=self.windows,
            )

    def _error(self, problem: str, **values: object) -> ValueError:
        received = ", ".join(f"{k}={v!r}" for k, v in values.items())
        return ValueError(
            f"{problem}. Received: {received} (statistic {self.name!r})"
        )

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The numbers, in the order in which a candidate has them."""
        found = []
        for count in self.counts:
            if count == "age":
                found.append(Number(f"{self.name}_age", count, None))
                continue
            for window in self.windows:
                text = "all" if window is None else span_text(window)
                name = f"{self.name}_{count}_{text}"
                found.append(Number(name, count, window))
        return tuple(found)

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields as tables of requests call them: `candidate_brand`."""
        return tuple(field.replace(".", "_") for field in self.fields)

    def meaning(self, number: Number) -> str:
        """Returns what a number is, in words for those who have to send it."""
        whose = " with ".join(
            "the user's id"
            if field == USER_ID
            else f"the {field.replace('.', chr(39) + 's ')}"
            for field in self.fields
        )
        begin = f"the start of the request's bucket ({span_text(self.bucket)})"
        missing = "NaN if missing"
        if number.count == "age":
            return (
                f"seconds to {begin} from that of the first impression of "
                f"{whose}, NaN if there is none more than "
                f"{span_text(self.delay)} before; {missing}"
            )
        window = (
            "all the time"
            if number.window is None
            else f"a window of {span_text(number.window)}"
        )
        what = {
            "impressions": "impressions",
            "clicks": "clicks",
            "rate": f"clicks to impressions, smoothed by {self.prior:g} of the "
            "rate of all candidates,",
        }[number.count]
        return (
            f"{what} of {whose}, of all users, in {window} that ends "
            f"{span_text(self.delay)} before {begin}; {missing}"
        )


def statistic_from_dict(**values: object) -> Statistic:
    """Returns the statistic that JSON, which has no tuples, describes."""
    return Statistic(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }  # type: ignore[arg-type] # checked by the class
    )


def span_text(seconds: int) -> str:
    """Returns whole seconds in the largest unit that gives a whole number.

    >>> span_text(259200), span_text(5400), span_text(0)
    ('3d', '90min', '0h')
    """
    if seconds == 0:
        return "0h"
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def parse_span(text: str) -> int:
    """Returns the seconds of a text such as 1h, 3d, 90min or 45s.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"(\d+)(d|h|min|s)", text)
    if match is None:
        raise ValueError(
            "a span of time is a whole number and d, h, min or s, as in 3d. "
            f"Received: {text!r}"
        )
    return int(match[1]) * _UNITS[match[2]]
