"""Statistics of users as they were at each user's first request."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.candidate_statistics.stored_counts import read_base
from data_pipelines.candidate_statistics.value_counts import ValueCounts
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.store import Store
from sparsectr.schema import PADDING_ID
from sparsectr.statistic import USER_ID, Statistic

Array = npt.NDArray[Any]


def frozen_statistics(
    store: Store, shard: Shard, split: str, first: Array
) -> dict[str, Array]:
    """Returns the numbers that do not grow with the clicks of a user.

    Those of statistics of the user's id, as a request at the time of the
    user's first one would have them: the same windows, delay and rate of all
    candidates. Other statistics are of all users, and stay what they are.

    The impressions are counted anew, from the user's own candidates in the
    shard, each at the time of its request. Values that are out of vocabulary
    are one value here, as they are to the model; the preparation, which sees
    raw values and the time of each row, tells them apart.

    Args:
        store: Has the clicks of all candidates by time.
        shard: Where the users are.
        split: "train" or "test".
        first: int64 `[num_requests]`, for each request of the split the row
            of its user's first one.

    Returns:
        float32 `[num_candidates]` for each number, by its name.

    Raises:
        InputError: If the counts of all candidates are absent or damaged.
    """
    found: dict[str, Array] = {}
    for statistic in store.schema.statistics:
        if USER_ID in statistic.fields:
            found |= _numbers(store, shard, split, first, statistic)
    return found


def _numbers(
    store: Store, shard: Shard, split: str, first: Array, statistic: Statistic
) -> dict[str, Array]:
    (name,) = (
        field.removeprefix("candidate.")
        for field in statistic.fields
        if field != USER_ID
    )
    requests = shard.splits[split]
    parts = [_shown(each, name, statistic) for each in shard.splits.values()]
    user, value, bucket, label = map(np.concatenate, zip(*parts, strict=True))
    own_user, own_value, _, _ = _shown(requests, name, statistic)
    counts = np.diff(requests.candidate_offset)
    own_bucket = np.repeat(requests.time[first], counts).astype(np.int64)
    own_bucket //= statistic.bucket
    # Numbers of the pairs: those that were shown and those that are asked
    # are the same ones.
    size = int(value.max(initial=0)) + 1
    distinct, pair = np.unique(user * size + value, return_inverse=True)
    asked = np.searchsorted(distinct, own_user * size + own_value)
    order = np.lexsort((bucket, pair))
    pair, bucket, label = pair[order], bucket[order], label[order]
    starts = np.ones(len(pair), np.bool_)
    starts[1:] = (pair[1:] != pair[:-1]) | (bucket[1:] != bucket[:-1])
    row = np.cumsum(starts) - 1
    shown = ValueCounts(
        value=pair[starts],
        bucket=bucket[starts],
        impressions=np.bincount(row),
        clicks=np.bincount(row, label).astype(np.int64),
    )
    base = read_base(store.newest, statistic.bucket)
    numbers = shown.numbers(statistic, base, asked, own_bucket)
    for column in numbers.values():
        column[own_value == PADDING_ID] = np.nan
    return numbers


def _shown(requests: Any, name: str, statistic: Statistic) -> tuple[Array, ...]:
    """Returns user, value, bucket and label of each candidate."""
    counts = np.diff(requests.candidate_offset)
    return (
        np.repeat(requests.user, counts).astype(np.int64),
        np.asarray(requests.candidates[name]).astype(np.int64),
        np.repeat(requests.time, counts).astype(np.int64) // statistic.bucket,
        np.asarray(requests.label),
    )
