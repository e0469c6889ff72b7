"""A shard, some users at a time."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard


def user_blocks(shard: Shard, num_rows: int) -> Iterator[Shard]:
    """Yields the shard's users in blocks of about `num_rows` rows each.

    A row is a behavior or a candidate. Times are int64, so that they can be
    subtracted, and row numbers count from the block's first row.
    """
    first_request = {
        # The type of the column, or NumPy would copy it.
        split: np.searchsorted(
            requests.user,
            np.arange(shard.num_users + 1, dtype=requests.user.dtype),
        )
        for split, requests in shard.splits.items()
    }
    rows = np.array(shard.behavior_offset)
    for split, requests in shard.splits.items():
        rows += requests.candidate_offset[first_request[split]]
    edges = np.searchsorted(rows, np.arange(0, rows[-1], num_rows))
    edges = np.unique([0, *edges, shard.num_users])
    for first, end in itertools.pairwise(edges):
        offset = np.array(shard.behavior_offset[first : end + 1])
        behaviors = slice(offset[0], offset[-1])
        yield dataclasses.replace(
            shard,
            user_id=shard.user_id[first:end],
            behavior_offset=offset - offset[0],
            behavior_time=shard.behavior_time[behaviors].astype(np.int64),
            behaviors={
                name: ids[behaviors] for name, ids in shard.behaviors.items()
            },
            splits={
                split: _request_block(
                    requests,
                    slice(*first_request[split][[first, end]]),
                    first_user=first,
                    first_behavior=offset[0],
                )
                for split, requests in shard.splits.items()
            },
        )


def _request_block(
    requests: RequestColumns, rows: slice, first_user: Any, first_behavior: Any
) -> RequestColumns:
    offset = requests.candidate_offset[rows.start : rows.stop + 1]
    candidates = slice(offset[0], offset[-1])
    return RequestColumns(
        user=requests.user[rows] - first_user,
        users={name: ids[rows] for name, ids in requests.users.items()},
        time=requests.time[rows].astype(np.int64),
        history_end=requests.history_end[rows] - first_behavior,
        candidate_offset=offset - offset[0],
        candidates={
            name: values[candidates]
            for name, values in requests.candidates.items()
        },
        label=requests.label[candidates],
    )
