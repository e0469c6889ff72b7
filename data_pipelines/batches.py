"""Which requests a step reads, and their batch as NumPy arrays.

The order is a pure function of seed and step: nothing has to be saved to go
on after a stop, and every worker knows the whole of every batch.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.shard import Shard
from data_pipelines.store import Store
from sparsectr.config import DataConfig

Array = npt.NDArray[Any]


class BatchLabels(NamedTuple):
    """The labels of a step's real candidates.

    Attributes:
        mask: bool `[requests, C]`, True for a real candidate.
        label: uint8, one for each True of `mask`, row by row.
        user: int64, raw user id of each of them.
    """

    mask: Array
    label: Array
    user: Array


class Batches:
    """The batches of one split of a store.

    A batch holds requests of one length bucket, so that its padded length is
    one of a few and short histories do not pay for long ones. Each epoch
    permutes the requests within their buckets and then the batches of all
    buckets. Nothing is dropped: the last batch of a bucket is filled up with
    rows that have no candidate.

    Args:
        store: Where the requests are.
        split: "train" or "test".
        config: Lengths and buckets.
        batch_size: Requests of a batch.
        seed: Seed of the order; `None` for the order of the store, bucket by
            bucket.

    Attributes:
        num_requests: Requests of the split.
        num_batches: Batches of an epoch.
        lengths: The padded lengths that occur.

    Raises:
        ValueError: If `batch_size` is below 1.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        config: DataConfig,
        batch_size: int,
        seed: int | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                "`batch_size` must be at least 1. "
                f"Received: batch_size={batch_size}"
            )
        self._shards = store.shards
        self._split = split
        self._schema = store.schema
        self._config = config
        self._seed = seed
        self.batch_size = batch_size
        self.num_requests = store.num_requests(split)
        self._first_request = np.cumsum(
            [0, *(s.splits[split].num_requests for s in store.shards)]
        )
        self.lengths = _padded_lengths(config)
        bucket = np.searchsorted(self.lengths, self._history_lengths())
        # Requests bucket by bucket; int32 holds 2 billion of them.
        self._by_bucket = np.argsort(bucket, kind="stable").astype(np.int32)
        self._bucket_end = np.searchsorted(
            bucket[self._by_bucket], np.arange(len(self.lengths)), side="right"
        )
        sizes = np.diff(self._bucket_end, prepend=0)
        self._batch_bucket = np.repeat(
            np.arange(len(self.lengths)), -(-sizes // batch_size)
        )
        self.num_batches = len(self._batch_bucket)
        first = np.searchsorted(self._batch_bucket, self._batch_bucket)
        self._batch_start = (
            self._bucket_end[self._batch_bucket] - sizes[self._batch_bucket]
        ) + (np.arange(self.num_batches) - first) * batch_size
        self._epoch_order = functools.lru_cache(maxsize=2)(self._shuffle)

    def requests(self, step: int) -> tuple[Array, int]:
        """Returns which requests a step reads, and their padded length.

        Args:
            step: Step since the start of training, not of the epoch.

        Returns:
            int32 `[<= batch_size]`, request numbers over all shards, and L.
        """
        epoch, place = divmod(step, self.num_batches)
        requests, batch_order = self._epoch_order(epoch)
        batch = batch_order[place]
        bucket = self._batch_bucket[batch]
        start = self._batch_start[batch]
        end = min(start + self.batch_size, self._bucket_end[bucket])
        return requests[start:end], int(self.lengths[bucket])

    def users(self, step: int) -> tuple[Array, Array]:
        """Returns raw user ids and request times of a step's requests."""
        requests, _ = self.requests(step)
        user = np.empty(len(requests), np.int64)
        time = np.empty(len(requests), np.int64)
        for shard, rows, own in self._of_shards(requests):
            columns = shard.splits[self._split]
            user[rows] = shard.user_id[columns.user[own]]
            time[rows] = columns.time[own]
        return user, time

    def labels(self, step: int, width: int) -> BatchLabels:
        """Returns the labels of a step, without reading its features.

        Args:
            step: Step since the start of training.
            width: C, the padded number of candidates of the batch.
        """
        requests, _ = self.requests(step)
        user, _ = self.users(step)
        mask = np.zeros((len(requests), width), np.bool_)
        label = np.zeros((len(requests), width), np.uint8)
        for shard, places, own in self._of_shards(requests):
            columns = shard.splits[self._split]
            target, source = _candidate_rows(
                columns.candidate_offset, own, places, width
            )
            mask[target] = True
            label[target] = columns.label[source]
        counts = mask.sum(axis=1)
        return BatchLabels(mask, label[mask], np.repeat(user, counts))

    def batch(
        self, step: int, part: int = 0, num_parts: int = 1
    ) -> dict[str, Array]:
        """Returns one of the equal parts of a step's batch.

        Args:
            step: Step since the start of training.
            part: Which part, from 0.
            num_parts: Number of parts; divides the batch size.

        Returns:
            The dict of tensors of a request, with `candidate_mask` and
            `label`: `[batch_size / num_parts, ...]`. All parts of a step
            have the same shapes.
        """
        requests, length = self.requests(step)
        num_candidates = 0
        for shard, _, own in self._of_shards(requests):
            offset = shard.splits[self._split].candidate_offset
            counts = offset[own + 1] - offset[own]
            num_candidates = max(num_candidates, int(counts.max()))
        width = _round_up(num_candidates, self._config.candidate_buckets)

        rows = self.batch_size // num_parts
        requests = requests[part * rows : (part + 1) * rows]
        batch = self.empty(rows, length, width)
        for shard, places, own in self._of_shards(requests):
            self._fill(batch, shard, places, own)
        return batch

    def _history_lengths(self) -> Array:
        """Returns the number of behaviors read for each request."""
        parts = []
        for shard in self._shards:
            columns = shard.splits[self._split]
            start = shard.behavior_offset[columns.user]
            length = np.asarray(columns.history_end) - start
            parts.append(np.minimum(length, self._config.max_history))
        return np.concatenate(parts)

    def _shuffle(self, epoch: int) -> tuple[Array, Array]:
        """Returns requests by bucket and the order of batches of an epoch."""
        if self._seed is None:
            return self._by_bucket, np.arange(self.num_batches)
        generator = np.random.default_rng([self._seed, epoch])
        requests = self._by_bucket.copy()
        for bucket in np.split(requests, self._bucket_end[:-1]):
            generator.shuffle(bucket)  # a view
        return requests, generator.permutation(self.num_batches)

    def _of_shards(self, requests: Array) -> list[tuple[Shard, Array, Array]]:
        """Returns for each shard concerned: places in the batch, own rows."""
        which = np.searchsorted(self._first_request, requests, "right") - 1
        found = []
        for index in np.unique(which):
            (places,) = np.nonzero(which == index)
            own = requests[places] - self._first_request[index]
            found.append((self._shards[index], places, own))
        return found

    def empty(self, rows: int, length: int, width: int) -> dict[str, Array]:
        """Returns a batch of `rows` requests without any row filled.

        Args:
            rows: Requests.
            length: L.
            width: C.
        """
        schema = self._schema
        batch: dict[str, Array] = {
            f"user_{field.name}": np.zeros(rows, np.int32)
            for field in schema.user_fields
        }
        for field in schema.behavior_fields:
            batch[f"behavior_{field.name}"] = np.zeros((rows, length), np.int32)
        batch["behavior_time"] = np.zeros((rows, length), np.int64)
        # A row that only fills up the batch gets a time that is none.
        batch["request_time"] = np.ones(rows, np.int64)
        for field in schema.candidate_fields:
            batch[f"candidate_{field.name}"] = np.zeros((rows, width), np.int32)
        for dense in schema.candidate_dense_fields:
            batch[f"candidate_{dense.name}"] = np.zeros(
                (rows, width), np.float32
            )
        batch["candidate_mask"] = np.zeros((rows, width), np.bool_)
        batch["label"] = np.zeros((rows, width), np.float32)
        return batch

    def _fill(
        self, batch: dict[str, Array], shard: Shard, places: Array, own: Array
    ) -> None:
        """Writes requests `own` of a shard into rows `places` of a batch."""
        requests = shard.splits[self._split]
        user = np.asarray(requests.user[own])
        for field in self._schema.user_fields:
            batch[f"user_{field.name}"][places] = shard.users[field.name][user]
        batch["request_time"][places] = requests.time[own]

        length = batch["behavior_time"].shape[1]
        end = np.asarray(requests.history_end[own])[:, None]
        start = np.asarray(shard.behavior_offset[user])[:, None]
        row = end + np.arange(-length, 0)
        valid = row >= start  # [rows, L]
        at = np.nonzero(valid)
        source = row[at]
        target = (places[at[0]], at[1])
        batch["behavior_time"][target] = shard.behavior_time[source]
        for field in self._schema.behavior_fields:
            column = shard.behaviors[field.name]
            batch[f"behavior_{field.name}"][target] = column[source]

        target, source = _candidate_rows(
            requests.candidate_offset, own, places, batch["label"].shape[1]
        )
        batch["candidate_mask"][target] = True
        batch["label"][target] = requests.label[source]
        for name, column in requests.candidates.items():
            batch[f"candidate_{name}"][target] = column[source]


def _candidate_rows(
    offset: Array, own: Array, places: Array, width: int
) -> tuple[tuple[Array, Array], Array]:
    """Returns where candidates go in a batch, and their rows in the store."""
    row = np.asarray(offset[own])[:, None] + np.arange(width)
    at = np.nonzero(row < np.asarray(offset[own + 1])[:, None])
    return (places[at[0]], at[1]), row[at]


def _padded_lengths(config: DataConfig) -> Array:
    """Returns the padded lengths, ascending, the largest last."""
    buckets = [n for n in config.length_buckets if n < config.max_history]
    return np.array([*buckets, config.max_history])


def _round_up(count: int, buckets: tuple[int, ...]) -> int:
    """Returns the bucket that holds `count`, or a multiple of the last."""
    for bucket in buckets:
        if count <= bucket:
            return bucket
    return -(-count // buckets[-1]) * buckets[-1]
