"""Statistics of candidates in plain Python, straight from the log."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.raw.raw_dataset import RawDataset
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic
from tests.data_pipelines.small_dataset import TYPES, Rows, small_dataset

MISSING = -(2**63)

STATISTICS = (
    Statistic(
        name="thing",
        fields=("candidate.thing",),
        counts=("impressions", "clicks", "rate", "age"),
        windows=(4, 12, None),
        bucket=4,
    ),
    Statistic(
        name="late",
        fields=("candidate.kind",),
        counts=("rate", "age", "impressions"),
        windows=(6, None),
        bucket=2,
        delay=4,
        prior=3.0,
    ),
    Statistic(
        name="own",
        fields=("user_id", "candidate.thing"),
        counts=("clicks", "impressions"),
        bucket=1,
    ),
    Statistic(
        name="aged",
        fields=("candidate.kind", "user.age"),
        counts=("rate",),
        windows=(9, None),
        bucket=3,
        delay=3,
    ),
)

SCHEMA = DatasetSchema(
    name="small",
    tables=(
        Table(name="user_id"),
        Table(name="age"),
        Table(name="item", min_count=2),
        Table(name="kind", value_type="string"),
    ),
    user_fields=(CategoricalField(name="age", table="age"),),
    behavior_fields=(CategoricalField(name="item", table="item"),),
    candidate_fields=(
        CategoricalField(name="thing", table="item"),
        CategoricalField(name="kind", table="kind"),
    ),
    candidate_dense_fields=(DenseField(name="price", transform="log1p"),),
).with_statistics(STATISTICS)

FIRST_TIME, TEST_TIME, END_TIME = 101, 131, 150


def drawn_log(num_users: int = 23, seed: int = 0) -> dict[str, Rows]:
    """Returns rows whose requests often last for some seconds."""
    random = np.random.default_rng(seed)
    impressions = []
    for user in range(num_users):
        for request in range(int(random.integers(1, 9))):
            start = int(random.integers(FIRST_TIME, END_TIME - 4))
            for _ in range(int(random.integers(1, 5))):
                thing: int | None = int(random.integers(0, 7)) ** 2 - 20
                if random.random() < 0.15:
                    thing = (None, MISSING)[int(random.integers(2))]
                kind = (None, "", "a", "b", "ü")[int(random.integers(5))]
                late = int(random.integers(0, 4)) * int(random.integers(0, 2))
                label = int(random.random() < 0.3)
                impressions.append(
                    (user, start + late, thing, 1.0, label, request, kind)
                )
    order = random.permutation(len(impressions))
    return {
        "users": [(u, (None, 3, 4)[u % 3]) for u in range(1, num_users)],
        "behaviors": [(u, FIRST_TIME, 1, "a") for u in range(num_users)],
        "impressions": [impressions[place] for place in order],
    }


LOG_TYPES = {
    **TYPES,
    "impressions": {
        **TYPES["impressions"],
        "kind": TYPES["behaviors"]["kind"],
    },
}


def log_dataset(
    rows: Mapping[str, Rows], folder: Any, **options: Any
) -> RawDataset:
    """Returns the data set of a log."""
    return small_dataset(
        rows, folder, LOG_TYPES, **{"schema": SCHEMA, **options}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A candidate.

    Args:
        request: User and number of its request.
        request_time: The earliest of its rows.
        time: That of its own row.
        values: By field, as statistics call them; `None` is missing.
        label: Clicked or not.
    """

    request: tuple[Any, int]
    request_time: int
    time: int
    values: Mapping[str, Any]
    label: int


def shown_candidates(rows: Mapping[str, Rows]) -> list[Shown]:
    """Returns all candidates in the order of the log."""
    ages = dict(rows["users"])
    start: dict[Any, int] = {}
    for user, time, *_, request, _ in rows["impressions"]:
        start[user, request] = min(time, start.get((user, request), time))
    return [
        Shown(
            request=(user, request),
            request_time=start[user, request],
            time=time,
            values={
                "user_id": user,
                "user.age": ages.get(user),
                "candidate.thing": None if thing == MISSING else thing,
                "candidate.kind": kind or None,
            },
            label=label,
        )
        for user, time, thing, _, label, request, kind in rows["impressions"]
    ]


def slow_numbers(
    statistic: Statistic, log: Sequence[Shown], asked: Shown
) -> dict[str, float | None]:
    """Returns the numbers of a candidate, `None` for one that is missing."""
    begin = asked.request_time // statistic.bucket * statistic.bucket
    end = begin - statistic.delay
    value = [asked.values[field] for field in statistic.fields]
    if None in value:
        return dict.fromkeys((n.name for n in statistic.numbers), None)
    before = [
        c for c in log if c.time // statistic.bucket * statistic.bucket < end
    ]
    base = sum(c.label for c in before) / len(before) if before else 0.5
    same = [
        c for c in before if [c.values[f] for f in statistic.fields] == value
    ]
    found: dict[str, float | None] = {}
    for number in statistic.numbers:
        start = -(10**9) if number.window is None else end - number.window
        inside = [c for c in same if c.time >= start]
        clicks = sum(c.label for c in inside)
        if number.count == "impressions":
            found[number.name] = len(inside)
        elif number.count == "clicks":
            found[number.name] = clicks
        elif number.count == "rate":
            prior = statistic.prior
            found[number.name] = (clicks + prior * base) / (len(inside) + prior)
        else:
            first = min((c.time for c in same), default=None)
            found[number.name] = (
                None
                if first is None
                else begin - first // statistic.bucket * statistic.bucket
            )
    return found
