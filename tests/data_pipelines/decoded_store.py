"""A store turned back into raw values, to be held against the raw files."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from data_pipelines.stores.id_sets import IdSets
from data_pipelines.stores.shard import (
    SPLITS,
    Shard,
    stored_ids,
    stored_numbers,
)
from data_pipelines.stores.store import Store
from sparsectr.schema import Prefix, Table

OUT_OF_VOCABULARY = "(out of vocabulary)"
"""What stands for a value that the training period showed too rarely."""

Values = dict[str, Any]
"""Raw values by field; `None` is missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class User:
    """A user and all behaviors as (time, values), oldest first."""

    user_id: int | str
    behaviors: list[tuple[int, Values]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A request with what the model may see of it.

    The history is (time, values), oldest first, and the candidates are
    (values, label), both in their order.
    """

    user_id: int | str
    time: int
    split: str
    profile: Values
    history: list[tuple[int, Values]]
    candidates: list[tuple[Values, int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """All that a store says, whatever its shards.

    Users ascend by id; requests ascend by user, training before test, and
    then are in the order of the store, which must be that of time.
    """

    users: list[User]
    requests: list[Request]
    vocabularies: dict[str, list[Any]]


def decode(store: Store) -> Decoded:
    """Returns all rows of a store as raw values."""
    vocabularies = {t.name: _values(store, t) for t in store.schema.tables}
    users: list[User] = []
    requests: list[Request] = []
    for shard in store.shards:
        of_shard = _users(store, shard, vocabularies)
        ids = [user.user_id for user in of_shard]
        assert ids == sorted(set(ids)), "ids must ascend within a shard"
        users += of_shard
        for split in SPLITS:
            requests += _requests(store, shard, split, of_shard, vocabularies)
    users.sort(key=lambda user: user.user_id)
    ids = [user.user_id for user in users]
    assert len(set(ids)) == len(ids), "a user is in several shards"
    requests.sort(key=lambda r: (r.user_id, r.split == "test"))
    return Decoded(users=users, requests=requests, vocabularies=vocabularies)


def _values(store: Store, table: Table) -> list[Any]:
    values = store.vocabulary(table.name).values
    assert values is not None, "hashed values cannot be turned back"
    assert table.size == len(values) + 2
    return list(values.to_pylist())


def _users(
    store: Store, shard: Shard, vocabularies: dict[str, list[Any]]
) -> list[User]:
    rows = _decode(store, "behavior", shard.behaviors, vocabularies)
    behaviors = list(zip(shard.behavior_time.tolist(), rows, strict=True))
    offset = shard.behavior_offset.tolist()
    assert offset[0] == 0
    assert offset[-1] == len(behaviors)
    ids = [
        value.decode() if isinstance(value, bytes) else value
        for value in shard.user_id.tolist()
    ]
    return [
        User(
            user_id=user_id,
            behaviors=behaviors[offset[row] : offset[row + 1]],
        )
        for row, user_id in enumerate(ids)
    ]


def _requests(
    store: Store,
    shard: Shard,
    split: str,
    users: list[User],
    vocabularies: dict[str, list[Any]],
) -> list[Request]:
    columns = shard.splits[split]
    rows = _decode(store, "candidate", columns.candidates, vocabularies)
    profiles = _decode(store, "user", columns.users, vocabularies)
    labelled = list(zip(rows, columns.label.tolist(), strict=True))
    begin = columns.candidate_offset.tolist()
    assert begin[0] == 0
    assert begin[-1] == len(labelled)
    requests = []
    for index, row in enumerate(columns.user.tolist()):
        start = int(shard.behavior_offset[row])
        num_behaviors = int(columns.history_end[index]) - start
        assert 0 <= num_behaviors <= len(users[row].behaviors)
        requests.append(
            Request(
                user_id=users[row].user_id,
                time=int(columns.time[index]),
                split=split,
                profile=profiles[index],
                history=users[row].behaviors[:num_behaviors],
                candidates=labelled[begin[index] : begin[index + 1]],
            )
        )
    return requests


def _decode(
    store: Store,
    prefix: Prefix,
    columns: Any,
    vocabularies: dict[str, list[Any]],
) -> list[Values]:
    """Returns one dict a row."""
    decoded: dict[str, list[Any]] = {}
    for field in stored_ids(store.schema, prefix):
        values = [None, OUT_OF_VOCABULARY, *vocabularies[field.table]]
        column = columns[field.name]
        if isinstance(column, IdSets):
            ends = column.offset.tolist()
            found = [values[i] for i in column.values.tolist()]
            decoded[field.name] = [
                found[start:end] for start, end in itertools.pairwise(ends)
            ]
        else:
            decoded[field.name] = [values[i] for i in column.tolist()]
    for name in stored_numbers(store.schema, prefix):
        assert columns[name].dtype == np.float32
        decoded[name] = [
            None if np.isnan(value) else value
            for value in columns[name].tolist()
        ]
    return [
        dict(zip(decoded, row, strict=True))
        for row in zip(*decoded.values(), strict=True)
    ]
