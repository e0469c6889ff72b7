"""A step's requests as a batch of NumPy arrays.

The order is a pure function of seed and step: nothing has to be saved to go
on after a stop.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.reading.batch_order import BatchOrder
from data_pipelines.reading.store_part import StorePart
from data_pipelines.requests.buckets import fitting_sizes, least_bucket
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.shard import (
    WEIGHT,
    Shard,
    stored_ids,
    stored_numbers,
)
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import Prefix

Array = npt.NDArray[Any]

_MOST_LENGTHS = 4
_MOST_WIDTHS = 2


class BatchLabels(NamedTuple):
    """The labels of a step's real candidates.

    Attributes:
        mask: bool `[requests, C]`, True for a real candidate.
        label: uint8, one for each True of `mask`, row by row.
        user: int64, row of each one's user among those of all shards.
        request: int64, number of each one's request over all shards.
        weight: float32, where the store has weights.
    """

    mask: Array
    label: Array
    user: Array
    request: Array
    weight: Array | None = None


class Batches:
    """The batches of one part of a store.

    A batch holds requests of one length bucket, so that its padded length is
    one of a few and short histories do not pay for long ones. `BatchOrder`
    says which. Nothing is dropped: the last batch of a bucket is filled up
    with rows that have no candidate.

    Several workers each read shards of their own. All have as many batches
    an epoch, and step by step the same padded length; the number of
    candidates is padded by each to what its own requests need.

    Args:
        store: Where the requests are.
        split: "train", "test", or a part of the former: "train_older" or
            "validation", which the store's validation time divides.
        config: Lengths, buckets, and how far requests are mixed.
        batch_size: Requests of a batch of this worker.
        seed: Seed of the order; `None` for the order of the store, window by
            window and bucket by bucket.
        worker: Which worker this is, from 0.
        num_workers: How many there are.
        newest_share: Of the requests of the part, the share that is read,
            the newest ones.
        between: Unix seconds of the first request that is read, and one past
            those of the last; `None` for all of the part.
        frozen_history: Whether every request has the history that its user
            had at the first one of the split. Within a user, a click that is
            in the history leaves fewer to come, so that the AUC of a user is
            too low for scores that rise with clicks; this takes it away.
            Statistics of the user's id are as of then, too.

    Attributes:
        num_requests: Requests of the part that this worker reads.
        num_batches: Batches of an epoch.
        lengths: The padded lengths that occur: those of `config`, or else at
            most four that pad the histories of the part the least.
        widths: The padded numbers of candidates, above the last its
            multiples: those of `config`, or else at most two that pad the
            batches of the part the least.

    Raises:
        ValueError: If `batch_size` is below 1, or there is no such worker.
        InputError: If the store has fewer shards than there are workers, or
            no validation time and a part is asked for that needs it.

    Cost:
        Reads the length of every history once, of all workers' shards, and
        twice where lengths are to be chosen; the number of candidates of
        every request, where widths are; and the time of every request, for a
        part that is cut.

    Memory:
        One byte for each request, and four for each in a few windows of
        `DataConfig.shuffle_shards` shards. The columns of two windows are
        mapped: the system keeps of them what it has room for.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        config: DataConfig,
        batch_size: int,
        seed: int | None,
        *,
        worker: int = 0,
        num_workers: int = 1,
        newest_share: float = 1.0,
        between: tuple[int, int] | None = None,
        frozen_history: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                "`batch_size` must be at least 1. "
                f"Received: batch_size={batch_size}"
            )
        if not 0 <= worker < num_workers:
            raise ValueError(
                "`worker` must be at least 0 and below `num_workers`. "
                f"Received: worker={worker}, num_workers={num_workers}"
            )
        if num_workers > len(store.shards):
            raise InputError(
                f"{store.path} has {len(store.shards)} shards, too few for "
                f"{num_workers} workers. Prepare it with more."
            )
        self._store = store
        self._schema = store.schema
        # One width each: a further one would be a further shape to compile.
        self._set_widths = {
            name: max(longest, 1)
            for name, longest in store.longest_sets.items()
        }
        self._config = config
        self.batch_size = batch_size
        self._part = StorePart(
            store,
            split,
            config,
            newest_share=newest_share,
            between=between,
            frozen_history=frozen_history,
        )
        self._split = self._part.split
        self._shard = self._part.shard
        self.lengths = self._padded_lengths()
        self.widths = config.candidate_buckets or self._fitting_widths()
        no_bucket = len(self.lengths)
        counts = np.zeros((len(store.shards), no_bucket), np.int64)
        sizes, buckets = [], {}
        for index in range(len(store.shards)):
            shard = self._shard(index)
            bucket = self._buckets(shard)
            bucket[~self._part.is_read(shard)] = no_bucket
            found = np.bincount(bucket, minlength=no_bucket)
            counts[index] = found[:no_bucket]
            sizes.append(len(bucket))
            if index % num_workers == worker:
                buckets[index] = bucket
        self.num_requests = int(counts[worker::num_workers].sum())
        self._first_request = np.cumsum([0, *sizes])
        self._first_user = np.cumsum([0, *(s.num_users for s in store.shards)])
        self._order = BatchOrder(
            counts,
            buckets,
            batch_size=batch_size,
            seed=seed,
            window_size=config.shuffle_shards,
            worker=worker,
            num_workers=num_workers,
            first_request=self._first_request,
        )
        self.num_batches = self._order.num_batches

    @property
    def first_time(self) -> int:
        """Unix seconds; requests before it are not read."""
        return self._part.first_time

    def requests(self, step: int) -> tuple[Array, int]:
        """Returns which requests a step reads, and their padded length.

        Args:
            step: Step since the start of training, not of the epoch.

        Returns:
            `[<= batch_size]`, request numbers over all shards, and L.
        """
        requests, bucket = self._order.requests(step)
        return requests, int(self.lengths[bucket])

    def shape(self, step: int) -> tuple[int, int]:
        """Returns L and C of a step's batch.

        Args:
            step: Step since the start of training.
        """
        requests, length = self.requests(step)
        return length, self._width(requests)

    def count_requests(self, num_steps: int) -> int:
        """Returns how many requests the first `num_steps` steps read."""
        if not num_steps:
            return 0
        epochs = num_steps // self.num_batches
        rest = range(epochs * self.num_batches, num_steps)
        return epochs * self.num_requests + sum(
            len(self.requests(step)[0]) for step in rest
        )

    def users(self, step: int) -> tuple[Array, Array]:
        """Returns raw user ids and request times of a step's requests.

        Args:
            step: Step since the start of training.

        Returns:
            int64 or text, and int64, `[<= batch_size]` each.
        """
        requests, _ = self.requests(step)
        # Text is as many bytes wide as its shard needs.
        widest = max(
            (shard.user_id.dtype for shard in self._store.shards),
            key=lambda dtype: dtype.itemsize,
        )
        user = np.empty(len(requests), widest)
        time = np.empty(len(requests), np.int64)
        for index, places, own in self._of_shards(requests):
            shard = self._shard(index)
            columns = shard.splits[self._split]
            user[places] = shard.user_id[columns.user[own]]
            time[places] = columns.time[own]
        if user.dtype.kind == "S":
            user = np.char.decode(user, "utf-8")
        return user, time

    def labels(self, step: int, width: int) -> BatchLabels:
        """Returns the labels of a step, without reading its features.

        Args:
            step: Step since the start of training.
            width: C, the padded number of candidates of the batch.
        """
        requests, _ = self.requests(step)
        user = np.empty(len(requests), np.int64)
        mask = np.zeros((len(requests), width), np.bool_)
        label = np.zeros((len(requests), width), np.uint8)
        weight = np.zeros((len(requests), width), np.float32)
        for index, places, own in self._of_shards(requests):
            columns = self._shard(index).splits[self._split]
            user[places] = self._first_user[index] + columns.user[own]
            target, source = _candidate_rows(
                columns.candidate_offset, own, places, width
            )
            mask[target] = True
            label[target] = columns.label[source]
            if self._schema.has_weight:
                weights = np.asarray(columns.candidates[WEIGHT])
                weight[target] = weights[source]
        counts = mask.sum(axis=1)
        return BatchLabels(
            mask,
            label[mask],
            np.repeat(user, counts),
            np.repeat(np.asarray(requests, np.int64), counts),
            weight[mask] if self._schema.has_weight else None,
        )

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
        width = self._width(requests)
        rows = self.batch_size // num_parts
        requests = requests[part * rows : (part + 1) * rows]
        return self._read(requests, rows, length, width)

    def batch_of(self, requests: Array) -> dict[str, Array]:
        """Returns a batch of certain requests, as `batch` reads them.

        Args:
            requests: `[B]`, request numbers over all shards.
        """
        bucket = max(
            int(self._buckets(self._shard(index), own).max())
            for index, _, own in self._of_shards(requests)
        )
        length, width = int(self.lengths[bucket]), self._width(requests)
        return self._read(requests, len(requests), length, width)

    def _width(self, requests: Array) -> int:
        num_candidates = 0
        for index, _, own in self._of_shards(requests):
            offset = self._shard(index).splits[self._split].candidate_offset
            counts = offset[own + 1] - offset[own]
            num_candidates = max(num_candidates, int(counts.max()))
        return least_bucket(self.widths, num_candidates)

    def _read(
        self, requests: Array, rows: int, length: int, width: int
    ) -> dict[str, Array]:
        batch = self.empty(rows, length, width)
        for index, places, own in self._of_shards(requests):
            self._fill(batch, self._shard(index), places, own)
        return batch

    def _padded_lengths(self) -> Array:
        """Returns the padded lengths, ascending, the largest last."""
        longest = self._config.max_history
        given = self._config.length_buckets
        if given:
            return np.array([*(n for n in given if n < longest), longest])
        counts = np.zeros(longest + 1, np.int64)
        for index in range(len(self._store.shards)):
            shard = self._shard(index)
            lengths = self._part.history_lengths(shard)[
                self._part.is_read(shard)
            ]
            counts += np.bincount(lengths, minlength=longest + 1)
        return np.array(fitting_sizes(counts, _MOST_LENGTHS))

    def _fitting_widths(self) -> tuple[int, ...]:
        """Returns the padded numbers of candidates that fit the batches."""
        counts = np.zeros(1, np.int64)
        for index in range(len(self._store.shards)):
            shard = self._shard(index)
            offset = shard.splits[self._split].candidate_offset
            own = np.bincount(np.diff(offset)[self._part.is_read(shard)])
            longer, shorter = sorted([counts, own], key=len, reverse=True)
            longer[: len(shorter)] += shorter
            counts = longer
        if not counts.any():
            return (1,)
        # A batch is as wide as the widest of its requests.
        is_within = (np.cumsum(counts) / counts.sum()) ** self.batch_size
        return fitting_sizes(np.diff(is_within, prepend=0.0), _MOST_WIDTHS)

    def _buckets(self, shard: Shard, own: Array | slice = slice(None)) -> Array:
        """Returns the length bucket of each request of a shard, or of some."""
        bucket = np.searchsorted(
            self.lengths, self._part.history_lengths(shard, own)
        )
        return bucket.astype(np.min_scalar_type(len(self.lengths)))

    def _of_shards(self, requests: Array) -> list[tuple[int, Array, Array]]:
        """Returns for each shard concerned: places in the batch, own rows."""
        which = np.searchsorted(self._first_request, requests, "right") - 1
        found = []
        for index in np.unique(which).tolist():
            (places,) = np.nonzero(which == index)
            own = requests[places] - self._first_request[index]
            found.append((index, places, own))
        return found

    def empty(self, rows: int, length: int, width: int) -> dict[str, Array]:
        """Returns a batch of `rows` requests without any row filled.

        Args:
            rows: Requests.
            length: L.
            width: C.
        """
        shapes: dict[Prefix, tuple[int, ...]] = {
            "user": (rows,),
            "behavior": (rows, length),
            "candidate": (rows, width),
        }
        batch: dict[str, Array] = {}
        for prefix, shape in shapes.items():
            for field in stored_ids(self._schema, prefix):
                name = f"{prefix}_{field.name}"
                own = (self._set_widths[name],) if field.is_set else ()
                batch[name] = np.zeros((*shape, *own), np.int32)
            for number in stored_numbers(self._schema, prefix):
                batch[f"{prefix}_{number}"] = np.zeros(shape, np.float32)
        batch["behavior_time"] = np.zeros((rows, length), np.int64)
        # A row that only fills up the batch gets a time that is none.
        batch["request_time"] = np.ones(rows, np.int64)
        batch["candidate_mask"] = np.zeros((rows, width), np.bool_)
        batch["label"] = np.zeros((rows, width), np.float32)
        return batch

    def _fill(
        self, batch: dict[str, Array], shard: Shard, places: Array, own: Array
    ) -> None:
        """Writes requests `own` of a shard into rows `places` of a batch."""
        requests = shard.splits[self._split]
        user = requests.user[own]
        for name, column in requests.users.items():
            values = batch[f"user_{name}"]
            values[places] = _padded(column, own, values)
        batch["request_time"][places] = requests.time[own]

        length = batch["behavior_time"].shape[1]
        end = self._part.history_end(shard, own)
        row = end[:, None] + np.arange(-length, 0)
        valid = row >= shard.behavior_offset[user][:, None]  # [rows, L]
        row = row[valid]
        columns = {"time": shard.behavior_time, **shard.behaviors}
        for name, column in columns.items():
            values = batch[f"behavior_{name}"]
            found = _padded(column, row, values)
            history = np.zeros(valid.shape + values.shape[2:], found.dtype)
            history[valid] = found
            values[places] = history

        target, source = _candidate_rows(
            requests.candidate_offset, own, places, batch["label"].shape[1]
        )
        batch["candidate_mask"][target] = True
        batch["label"][target] = requests.label[source]
        for name, column in requests.candidates.items():
            values = batch[f"candidate_{name}"]
            values[target] = _padded(column, source, values)


def _padded(column: Column, rows: Array, batch: Array) -> Array:
    """Returns rows of a column, sets as wide as they are in a batch."""
    if isinstance(column, IdSets):
        return column[rows].padded(batch.shape[-1])
    return column[rows]


def _candidate_rows(
    offset: Array, own: Array, places: Array, width: int
) -> tuple[tuple[Array, Array], Array]:
    """Returns where candidates go in a batch, and their rows in the store."""
    row = offset[own][:, None] + np.arange(width)
    at = np.nonzero(row < offset[own + 1][:, None])
    return (places[at[0]], at[1]), row[at]
