"""From raw rows to requests, in plain Python and as slowly as need be.

It shares no code with the packages: what it says, it says from
`data_pipelines/README.md`, "What becomes a request".
"""

import collections
import dataclasses
import math
from typing import Any

from tests.data_pipelines.decoded_store import (
    OUT_OF_VOCABULARY,
    Decoded,
    Request,
    User,
    Values,
)

UserId = int | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of a data set, each with the name of its table.

    A value of a table in `min_count` needs that many occurrences to have a
    row of its own, of any other table one. A field in `sets` has a list of
    values, of which so many are kept. `numbers` has the names of tensors, as
    `behavior_price`; those in `log_scaled` are scaled by their logarithm.
    """

    user: dict[str, str]
    behavior: dict[str, str]
    candidate: dict[str, str]
    min_count: dict[str, int]
    sets: dict[str, int] = dataclasses.field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    log_scaled: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behavior:
    """A row of a history; `moment` orders those of one second."""

    user_id: UserId
    time: int
    values: Values
    moment: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Impression:
    """A candidate; those equal in user and `request` were shown together.

    `profile` is that of the request, where users have none for all of theirs.
    """

    user_id: UserId
    time: int
    request: Any
    label: int
    values: Values
    profile: Values | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raw:
    """What the files of a data set say, rows in the order of the files.

    Where `behaviors_are_impressions`, a value that a behavior and a candidate
    have in common stands in one row and is counted once.
    """

    fields: Fields
    users: dict[UserId, Values]
    behaviors: list[Behavior]
    impressions: list[Impression]
    test_time: int
    dropped: dict[str, int]
    incomplete: dict[str, int]
    behaviors_are_impressions: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What a store must hold.

    `moments` is (mean, scale, largest value) of each number, called as its
    tensor, after its transform; the last says how far rounding may go.
    """

    decoded: Decoded
    counts: dict[str, Any]
    dropped: dict[str, int]
    incomplete: dict[str, int]
    moments: dict[str, tuple[float, float, float]]
    out_of_vocabulary: dict[str, dict[str, int]]

    def num_requests(self, split: str) -> int:
        """Returns the number of requests of a split."""
        return sum(r.split == split for r in self.decoded.requests)


def build(raw: Raw) -> Expected:
    """Returns what a store of these rows must hold."""
    users, requests = _group(raw)
    cut = _cut_sets(raw.fields, users, requests)
    vocabularies = _vocabularies(raw, users, requests)
    out_of_vocabulary = _count_unknown(
        raw.fields, users, requests, vocabularies
    )
    active = {user.user_id for user in users}
    decoded = Decoded(
        users=[
            User(
                user_id=user.user_id,
                behaviors=_mask_history(
                    user.behaviors, raw.fields, vocabularies
                ),
            )
            for user in users
        ],
        requests=[_mask_request(r, raw.fields, vocabularies) for r in requests],
        vocabularies=vocabularies,
    )
    return Expected(
        decoded=decoded,
        counts=_counts(users, requests),
        dropped={
            **raw.dropped,
            "behaviors of users without a request": sum(
                b.user_id not in active for b in raw.behaviors
            ),
            "profiles of users without a request": len(
                raw.users.keys() - active
            ),
        },
        incomplete={
            **raw.incomplete,
            "users without a profile": len(active - raw.users.keys()),
            "users without a behavior": sum(not u.behaviors for u in users),
            **cut,
        },
        moments=_all_moments(raw, users, requests),
        out_of_vocabulary=out_of_vocabulary,
    )


def _group(raw: Raw) -> tuple[list[User], list[Request]]:
    users = []
    requests = []
    nobody: Values = dict.fromkeys(raw.fields.user)
    for user_id in sorted({i.user_id for i in raw.impressions}):
        profile = raw.users.get(user_id, nobody)
        if "user_id" in raw.fields.user:
            profile = {**profile, "user_id": user_id}
        # `sorted` keeps the order of the file among equal times.
        of_user = [b for b in raw.behaviors if b.user_id == user_id]
        of_user.sort(key=lambda behavior: (behavior.time, behavior.moment))
        behaviors = [(b.time, b.values) for b in of_user]
        users.append(User(user_id=user_id, behaviors=behaviors))
        shown = [i for i in raw.impressions if i.user_id == user_id]
        for key in sorted({i.request for i in shown}):
            together = [i for i in shown if i.request == key]
            time = together[0].time
            requests.append(
                Request(
                    user_id=user_id,
                    time=time,
                    split="train" if time < raw.test_time else "test",
                    profile=together[0].profile or profile,
                    history=[b for b in behaviors if b[0] < time],
                    candidates=[(i.values, i.label) for i in together],
                )
            )
    return users, requests


def _vocabularies(
    raw: Raw, users: list[User], requests: list[Request]
) -> dict[str, list[Any]]:
    fields = raw.fields
    found: dict[str, collections.Counter[Any]] = {
        table: collections.Counter()
        for tables in (fields.user, fields.behavior, fields.candidate)
        for table in tables.values()
    }

    def add(values: Values, tables: dict[str, str]) -> None:
        for field, table in tables.items():
            found[table].update(_ids(values[field]))

    behavior = fields.behavior
    if raw.behaviors_are_impressions:
        behavior = dict(behavior.items() - fields.candidate.items())
    for user in users:
        for time, values in user.behaviors:
            if time < raw.test_time:
                add(values, behavior)
    for request in requests:
        if request.split == "train":
            add(request.profile, fields.user)
            for values, _ in request.candidates:
                add(values, fields.candidate)
    return {
        table: sorted(
            (
                value
                for value, count in counts.items()
                if count >= fields.min_count.get(table, 1)
            ),
            key=lambda value, counts=counts: (-counts[value], value),
        )
        for table, counts in found.items()
    }


def _mask(
    values: Values, tables: dict[str, str], vocabularies: dict[str, list[Any]]
) -> Values:
    """Replaces what is not in its vocabulary; keeps numbers as they are."""
    masked = dict(values)
    for field, table in tables.items():
        known = [
            value if value in vocabularies[table] else OUT_OF_VOCABULARY
            for value in _ids(values[field])
        ]
        if isinstance(values[field], list):
            masked[field] = known
        elif known:
            masked[field] = known[0]
    return masked


def _mask_history(
    history: list[tuple[int, Values]],
    fields: Fields,
    vocabularies: dict[str, list[Any]],
) -> list[tuple[int, Values]]:
    return [
        (time, _mask(values, fields.behavior, vocabularies))
        for time, values in history
    ]


def _mask_request(
    request: Request, fields: Fields, vocabularies: dict[str, list[Any]]
) -> Request:
    return dataclasses.replace(
        request,
        profile=_mask(request.profile, fields.user, vocabularies),
        history=_mask_history(request.history, fields, vocabularies),
        candidates=[
            (_mask(values, fields.candidate, vocabularies), label)
            for values, label in request.candidates
        ],
    )


def _ids(value: Any) -> list[Any]:
    """Returns the values of a field of one, or of a set."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _cut_sets(
    fields: Fields, users: list[User], requests: list[Request]
) -> dict[str, int]:
    """Cuts the sets in place, once each, and returns what was left out."""
    rows = {
        "user": [r.profile for r in requests],
        "behavior": [values for u in users for _, values in u.behaviors],
        "candidate": [v for r in requests for v, _ in r.candidates],
    }
    found = {}
    for prefix, tables in (
        ("user", fields.user),
        ("behavior", fields.behavior),
        ("candidate", fields.candidate),
    ):
        for field in fields.sets.keys() & tables.keys():
            most = fields.sets[field]
            sets = [values[field] or [] for values in rows[prefix]]
            found[f"sets of {prefix}_{field} that were cut"] = sum(
                len(values) > most for values in sets
            )
            found[f"nulls in sets of {prefix}_{field}"] = sum(
                values[:most].count(None) for values in sets
            )
    # A profile may be that of several requests.
    for values in {id(v): v for each in rows.values() for v in each}.values():
        for field in fields.sets.keys() & values.keys():
            first = (values[field] or [])[: fields.sets[field]]
            values[field] = [value for value in first if value is not None]
    return found


def _counts(users: list[User], requests: list[Request]) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "users": len(users),
        "behaviors": sum(len(user.behaviors) for user in users),
    }
    training = [r for r in requests if r.split == "train"]
    times = sorted(r.time for r in training)
    cut = times[int(0.9 * len(times))] if times else 0
    parts = {
        "train": training,
        "train_older": [r for r in training if r.time < cut],
        "validation": [r for r in training if r.time >= cut],
        "test": [r for r in requests if r.split == "test"],
    }
    for part, chosen in parts.items():
        labels = [label for r in chosen for _, label in r.candidates]
        counts[part] = {
            "requests": len(chosen),
            "candidates": len(labels),
            "positives": sum(labels),
        }
    return counts


def _count_unknown(
    fields: Fields,
    users: list[User],
    requests: list[Request],
    vocabularies: dict[str, list[Any]],
) -> dict[str, dict[str, int]]:
    """Returns rows, missing and unknown ones of each column of the store."""
    parts: dict[str, tuple[list[Values], dict[str, str]]] = {
        "behavior": (
            [values for user in users for _, values in user.behaviors],
            fields.behavior,
        ),
    }
    for split in ("train", "test"):
        chosen = [r for r in requests if r.split == split]
        parts[f"{split} user"] = ([r.profile for r in chosen], fields.user)
        parts[f"{split} candidate"] = (
            [values for r in chosen for values, _ in r.candidates],
            fields.candidate,
        )
    return {
        f"{part}_{field}": {
            # An empty set has no id that would say missing.
            "rows": sum(
                len(row[field]) if field in fields.sets else 1 for row in rows
            ),
            "missing": sum(row[field] is None for row in rows),
            "out_of_vocabulary": sum(
                value not in vocabularies[table]
                for row in rows
                for value in _ids(row[field])
            ),
        }
        for part, (rows, tables) in parts.items()
        for field, table in tables.items()
    }


def _all_moments(
    raw: Raw, users: list[User], requests: list[Request]
) -> dict[str, tuple[float, float, float]]:
    training = [r for r in requests if r.split == "train"]
    rows = {
        "user": [r.profile for r in training],
        "behavior": [
            values
            for user in users
            for time, values in user.behaviors
            if time < raw.test_time
        ],
        "candidate": [v for r in training for v, _ in r.candidates],
    }
    found = {}
    for tensor in raw.fields.numbers:
        prefix, _, name = tensor.partition("_")
        values = [r[name] for r in rows[prefix] if r[name] is not None]
        if tensor in raw.fields.log_scaled:
            values = [math.log1p(max(value, 0.0)) for value in values]
        found[tensor] = _moments(values)
    return found


def _moments(values: list[float]) -> tuple[float, float, float]:
    if not values:
        return 0.0, 1.0, 0.0
    largest = max(values)
    if min(values) == largest:
        # A constant feature says nothing, however its mean is rounded.
        return values[0], 1.0, largest
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / len(values)), largest
