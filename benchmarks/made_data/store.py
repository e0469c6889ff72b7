"""A store of full histories, in the fields of the Alibaba data."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.made_data.requests import published_schema
from data_pipelines.datasets.alibaba import FIRST_BEHAVIOR_TIME
from data_pipelines.stores.id_sets import Column, make_sets
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import SPLITS, Shard
from data_pipelines.stores.store import write_store
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema

Array = npt.NDArray[Any]

_REQUESTS_OF_USER = 8
_MAX_CANDIDATES = 20


def write_made_store(
    path: Path,
    *,
    num_shards: int,
    users_of_shard: int,
    num_behaviors: int,
    max_rows: int = 0,
    num_sets: int = 0,
    num_numbers: int = 0,
) -> None:
    """Writes a store of random ids, the same at each call.

    Args:
        path: Folder of the store.
        num_shards: Shards.
        users_of_shard: Users of each; every one has eight training requests
            of 1 to 20 candidates, and as many for test.
        num_behaviors: Behaviors before a user's first request; there are
            half as many again until the last.
        max_rows: Most rows of a table, 0 for no limit.
        num_sets: Sets of ids of a behavior, besides its fields.
        num_numbers: Numbers of a behavior.
    """
    schema = published_schema(max_rows, num_sets, num_numbers)
    generator = np.random.default_rng(0)
    shards = [
        _shard(generator, schema, index, users_of_shard, num_behaviors)
        for index in range(num_shards)
    ]
    write_store(
        path,
        schema=schema,
        vocabularies=(),
        shards=shards,
        details={"dataset": schema.name, "data_source": "synthetic: random"},
    )


def _shard(
    generator: np.random.Generator,
    schema: DatasetSchema,
    index: int,
    num_users: int,
    num_behaviors: int,
) -> Shard:
    in_all = num_behaviors + num_behaviors // 2
    offset = np.arange(num_users + 1) * in_all
    # One behavior every 100 seconds, so that a request finds its place.
    time = np.tile(FIRST_BEHAVIOR_TIME + 100 * np.arange(in_all), num_users)
    return Shard(
        user_id=index * num_users + np.arange(num_users),
        behavior_offset=offset,
        behavior_time=time.astype(np.uint32),
        behaviors=_behaviors(generator, schema, len(time)),
        splits={
            split: _requests(generator, schema, offset, time, num_behaviors)
            for split in SPLITS
        },
    )


def _behaviors(
    generator: np.random.Generator, schema: DatasetSchema, count: int
) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for field in schema.behavior_fields:
        if field.max_values is None:
            found[field.name] = _ids(generator, schema, field.table, count)
        else:
            sizes = generator.integers(0, field.max_values + 1, count)
            values = _ids(generator, schema, field.table, int(sizes.sum()))
            found[field.name] = make_sets(sizes, values)
    for number in schema.behavior_dense_fields:
        found[number.name] = generator.random(count, np.float32)
    return found


def _requests(
    generator: np.random.Generator,
    schema: DatasetSchema,
    offset: Array,
    time: Array,
    num_behaviors: int,
) -> RequestColumns:
    num_users = len(offset) - 1
    user = np.repeat(np.arange(num_users), _REQUESTS_OF_USER)
    length = generator.integers(
        num_behaviors,
        num_behaviors + num_behaviors // 2 + 1,
        (num_users, _REQUESTS_OF_USER),
    )
    end = offset[user] + np.sort(length, axis=1).ravel()
    counts = generator.integers(1, _MAX_CANDIDATES + 1, len(user))
    total = int(counts.sum())
    candidates: dict[str, Array] = {
        field.name: _ids(generator, schema, field.table, total)
        for field in schema.candidate_fields
    }
    for dense in schema.candidate_dense_fields:
        candidates[dense.name] = generator.random(total, np.float32)
    return RequestColumns(
        user=user.astype(np.int32),
        users={
            field.name: _ids(generator, schema, field.table, len(user))
            for field in schema.user_fields
        },
        time=(time[end - 1] + 1).astype(np.uint32),
        history_end=end,
        candidate_offset=np.concatenate([[0], np.cumsum(counts)]),
        candidates=candidates,
        label=(generator.random(total) < 0.05).astype(np.uint8),
    )


def _ids(
    generator: np.random.Generator,
    schema: DatasetSchema,
    table: str,
    count: int,
) -> Array:
    """Returns ids of the width that they have in a store."""
    size = schema.table(table).size or 0
    width = (
        np.uint8 if size <= 256 else np.uint16 if size <= 65536 else np.int32
    )
    return generator.integers(NUM_RESERVED_IDS, size, count).astype(width)
