"""A digest of what a store holds, whatever its shards and who wrote it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipelines.stores.hashing import hash_ids, hash_rows
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.shard import SPLITS, Shard

Array = npt.NDArray[Any]
Content = Mapping[str, int]
"""For behaviors, train and test: a sum over rows, modulo 2^64."""

_BLOCK_ROWS = 1 << 14
"""Rows that are hashed at a time: as many as a processor's cache has."""


def shard_content(shard: Shard) -> dict[str, int]:
    """Returns what a shard adds to the digest.

    Every row of a shard gives a hash of the user's raw id, of its place among
    the user's rows and of all its values. The hashes are added up, so that
    neither the order of users nor their spread over shards matters.
    """
    user = hash_ids(_ids(shard.user_id))
    offset = np.asarray(shard.behavior_offset)
    counts = np.diff(offset)
    owner = np.repeat(np.arange(shard.num_users), counts)
    content = {
        "users": _total([user, counts]),
        "behaviors": _total(
            [
                user[owner],
                np.arange(len(owner)) - offset[owner],
                np.asarray(shard.behavior_time),
                *_columns(shard.behaviors),
            ]
        ),
    }
    for split in SPLITS:
        requests = shard.splits[split]
        own = np.asarray(requests.user)
        start = np.asarray(requests.candidate_offset)
        request = hash_rows(
            [
                user[own],
                np.arange(len(own)) - np.searchsorted(own, own),
                np.asarray(requests.time),
                np.asarray(requests.history_end) - offset[own],
                *_columns(requests.users),
            ]
        )
        which = np.repeat(np.arange(len(own)), np.diff(start))
        content[split] = _sum(request) + _total(
            [
                request[which],
                np.arange(len(which)) - start[which],
                *_columns(requests.candidates),
                np.asarray(requests.label),
            ]
        )
    return content


def digest(
    contents: Sequence[Content], validation_time: int | None = None
) -> str:
    """Returns the digest of a store from those of its shards.

    Args:
        contents: What the shards add to it.
        validation_time: Unix seconds, where the store has one: requests on
            one side of it are other data than on the other.
    """
    names = sorted({name for content in contents for name in content})
    parts = [
        sum(content.get(name, 0) for content in contents) % (1 << 64)
        for name in names
    ]
    if validation_time is not None:
        parts.append(validation_time)
    return "-".join(f"{part:016x}" for part in parts)


def _columns(columns: Mapping[str, Column]) -> list[Array]:
    """Returns one array of numbers a column, by the names of the columns."""
    return [
        column.hashed() if isinstance(column, IdSets) else np.asarray(column)
        for _, column in sorted(columns.items())
    ]


def _ids(user_id: Array) -> pa.Array:
    if user_id.dtype.kind == "S":
        return pa.array([text.decode() for text in user_id.tolist()])
    return pa.array(np.asarray(user_id))


def _total(columns: Sequence[Array]) -> int:
    total = 0
    for start in range(0, len(columns[0]), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        total += _sum(hash_rows([column[rows] for column in columns]))
    return total % (1 << 64)


def _sum(hashes: Array) -> int:
    return int(hashes.sum(dtype=np.uint64))
