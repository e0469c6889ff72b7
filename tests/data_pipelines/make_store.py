"""A small store of several shards, and what a batch of it must hold.

Every behavior and every candidate has a serial number of its own, so that a
row of a batch says where it comes from.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import SPLITS, Shard
from data_pipelines.stores.store import Store, write_store
from sparsectr.config import DataConfig
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

# Tables of each of the three widths that ids have on disk.
SCHEMA = DatasetSchema(
    name="made",
    tables=(
        Table(name="user", kind="hashed", size=70_000),
        Table(name="kind", kind="hashed", size=5),
        Table(name="serial", kind="hashed", size=90_000),
        Table(name="shop", kind="hashed", size=300),
    ),
    user_fields=(
        CategoricalField(name="user", table="user"),
        CategoricalField(name="kind", table="kind"),
    ),
    behavior_fields=(
        CategoricalField(name="serial", table="serial"),
        CategoricalField(name="shop", table="shop"),
    ),
    candidate_fields=(
        CategoricalField(name="serial", table="serial"),
        CategoricalField(name="shop", table="shop"),
    ),
    candidate_dense_fields=(DenseField(name="price"),),
)

CONFIG = DataConfig(
    max_history=13, length_buckets=(3, 7), candidate_buckets=(2, 5)
)

FIRST_TIME = 1_500_000_000

VALIDATION_TIME = FIRST_TIME + 30
"""A quarter of the requests are not before it."""


def make_store(
    path: Path, users_of_shards: tuple[int, ...] = (17, 11, 13)
) -> Store:
    """Writes a store whose users have histories of 0 to 25 behaviors."""
    generator = np.random.default_rng(17)
    serial = 2
    shards = []
    for index, num_users in enumerate(users_of_shards):
        shard = _make_shard(generator, 1000 * index, num_users, serial)
        serial += shard.num_behaviors
        serial += sum(s.num_candidates for s in shard.splits.values())
        shards.append(shard)
    write_store(
        path,
        schema=SCHEMA,
        vocabularies=(),
        shards=shards,
        details={"split": {"validation_time": VALIDATION_TIME}},
    )
    return Store(path)


def _make_shard(
    generator: np.random.Generator, first_id: int, num_users: int, serial: int
) -> Shard:
    user_id = first_id + np.sort(
        generator.choice(1000, num_users, replace=False)
    )
    counts = generator.choice([0, 1, 3, 4, 7, 8, 13, 14, 25], num_users)
    offset = np.concatenate([[0], np.cumsum(counts)])
    # Few seconds for many behaviors: several share one with a request.
    times = [np.sort(generator.integers(0, 30, count)) for count in counts]
    time = FIRST_TIME + np.concatenate([*times, np.array([], int)])
    splits = {}
    next_serial = serial + len(time)
    for split in SPLITS:
        splits[split] = _make_requests(
            generator, num_users, offset, time, next_serial
        )
        next_serial += splits[split].num_candidates
    kind = generator.integers(0, 5, num_users)
    for split, requests in splits.items():
        # A profile may change from one request of a user to the next.
        user, place = requests.user, np.arange(requests.num_requests)
        users = {
            "user": (user_id[user] + 2).astype(np.int32),
            "kind": ((kind[user] + place) % 5).astype(np.uint8),
        }
        splits[split] = dataclasses.replace(requests, users=users)
    return Shard(
        user_id=user_id.astype(np.int64),
        behavior_offset=offset.astype(np.int64),
        behavior_time=time.astype(np.uint32),
        behaviors={
            "serial": (serial + np.arange(len(time))).astype(np.int32),
            "shop": generator.integers(1, 300, len(time)).astype(np.uint16),
        },
        splits=splits,
    )


def _make_requests(
    generator: np.random.Generator,
    num_users: int,
    offset: Any,
    behavior_time: Any,
    serial: int,
) -> RequestColumns:
    user = np.repeat(np.arange(num_users), generator.integers(0, 5, num_users))
    time = FIRST_TIME + generator.integers(0, 40, len(user))
    time = time[np.lexsort((time, user))]
    end = [
        offset[u] + sum(behavior_time[offset[u] : offset[u + 1]] < t)
        for u, t in zip(user, time, strict=True)
    ]
    counts = generator.choice([1, 2, 3, 5, 6, 11], len(user))
    total = counts.sum()
    price = generator.normal(size=total).astype(np.float32)
    price[::4] = np.nan
    return RequestColumns(
        user=user.astype(np.int32),
        users={},
        time=time.astype(np.uint32),
        history_end=np.array(end, np.int64),
        candidate_offset=np.concatenate([[0], np.cumsum(counts)]),
        candidates={
            "serial": (serial + np.arange(total)).astype(np.int32),
            "shop": generator.integers(0, 300, total).astype(np.uint16),
            "price": price,
        },
        label=generator.integers(0, 2, total).astype(np.uint8),
    )


def slow_request(
    store: Store, split: str, number: int, max_history: int, delay: int = 1
) -> dict[str, Any]:
    """Returns what a row of a batch must hold, without any padding.

    In plain Python, from the times and not from `history_end`.
    """
    for shard in store.shards:
        requests = shard.splits[split]
        if number < requests.num_requests:
            break
        number -= requests.num_requests
    user, time = int(requests.user[number]), int(requests.time[number])
    rows = [
        row
        for row in range(
            shard.behavior_offset[user], shard.behavior_offset[user + 1]
        )
        if shard.behavior_time[row] <= time - delay
    ][-max_history:]
    chosen = range(
        requests.candidate_offset[number], requests.candidate_offset[number + 1]
    )
    found: dict[str, Any] = {
        "raw_user": int(shard.user_id[user]),
        "request_time": time,
        "behavior_time": [int(shard.behavior_time[row]) for row in rows],
        "candidate_mask": [True for _ in chosen],
        "label": [float(requests.label[row]) for row in chosen],
    }
    for name, column in requests.users.items():
        found[f"user_{name}"] = _value(column, number)
    for name, column in shard.behaviors.items():
        found[f"behavior_{name}"] = [_value(column, row) for row in rows]
    for name, column in requests.candidates.items():
        found[f"candidate_{name}"] = [_value(column, row) for row in chosen]
    return found


def _value(column: Column, row: int) -> Any:
    """Returns what a row of a column has: a set as a list."""
    if isinstance(column, IdSets):
        start, end = int(column.offset[row]), int(column.offset[row + 1])
        return column.values[start:end].tolist()
    return column[row].item()


def check_row(batch: dict[str, Any], row: int, expected: Any) -> None:
    """Checks one row of a batch: histories end, candidates begin at an edge."""
    for name, value in batch.items():
        wanted = expected[name]
        is_list = name.startswith(("behavior_", "candidate_", "label"))
        if value.ndim == 2 + is_list:  # a set, or a list of them
            size = value.shape[-1]
            sets = wanted if is_list else [wanted]
            sets = [ids + [0] * (size - len(ids)) for ids in sets]
            wanted = sets if is_list else sets[0]
        if is_list:
            nothing = np.zeros(value.shape[2:], int).tolist()
            padding = [nothing] * (value.shape[1] - len(wanted))
            left = name.startswith("behavior_")
            wanted = padding + wanted if left else wanted + padding
        np.testing.assert_array_equal(
            value[row], np.array(wanted, value.dtype), err_msg=name
        )
