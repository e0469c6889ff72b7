"""Which requests each step reads: a pure function of seed and step."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class BatchOrder:
    """The order of an epoch's batches, made window by window.

    A window is some shards. The requests of a window are permuted within
    their length buckets, and so are the batches of all its buckets: a batch
    touches the shards of one window, and no more than a window's requests is
    ever permuted at once. What is left of a bucket at the end of a window
    begins the bucket's first batch in the next one, so that the number of
    batches does not depend on how the shards fall into windows.

    Each worker has its own shards, and its own requests in each batch. Step
    by step all workers read the same bucket, so that none waits for another
    that reads longer histories. One that has fewer requests of a bucket than
    another reads empty batches at the end.

    Args:
        counts: int64 `[num_shards, num_buckets]`, requests of each bucket,
            of the shards of all workers.
        buckets: For each shard of this worker, the bucket of its requests.
        batch_size: Requests of a batch.
        seed: Seed of the order; `None` for the order of the store, window by
            window and bucket by bucket.
        window_size: Most shards of a window.
        worker: Which worker, from 0.
        num_workers: Shard `s` belongs to worker `s % num_workers`.
        first_request: The number of each shard's first request, and one more
            at the end; where shards have requests that are never read, whose
            bucket is none, and which keep their numbers.

    Attributes:
        num_batches: Batches of an epoch, the same for every worker.
    """

    def __init__(
        self,
        counts: Array,
        buckets: Mapping[int, Array],
        *,
        batch_size: int,
        seed: int | None,
        window_size: int,
        worker: int = 0,
        num_workers: int = 1,
        first_request: Array | None = None,
    ) -> None:
        self._counts = counts
        self._buckets = buckets
        self._batch_size = batch_size
        self._seed = seed
        self._worker = worker
        self._num_workers = num_workers
        most_shards = -(-len(counts) // num_workers)
        self._num_windows = -(-most_shards // window_size)
        if first_request is None:
            first_request = np.cumsum([0, *counts.sum(axis=1)])
        self._first_request = first_request
        # int32 holds 2 billion requests in half the memory.
        few = self._first_request[-1] <= np.iinfo(np.int32).max
        self._dtype = np.int32 if few else np.int64
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
        # The window that is read, the one before, whose rest it begins with,
        # and the one that is read ahead.
        self._window = functools.lru_cache(maxsize=3)(self._make_window)
        self.num_batches = int(self._epoch(0).first_batch[-1].sum())

    def requests(self, step: int) -> tuple[Array, int]:
        """Returns which requests a step reads, and their length bucket.

        Args:
            step: Step since the start of training, not of the epoch.

        Returns:
            `[<= batch_size]`, request numbers over all shards, and the
            number of the bucket.
        """
        number, place = divmod(step, self.num_batches)
        first = self._epoch(number).first_batch
        index = _last_at_most(first.sum(axis=1), place)
        batch = self._window(number, index).batches[place - first[index].sum()]
        # The batches of a window are numbered bucket by bucket.
        sizes = first[index + 1] - first[index]
        starts = np.cumsum(sizes) - sizes
        bucket = _last_at_most(starts, batch)
        batch_of_bucket = first[index, bucket] + batch - starts[bucket]
        return self._slice(number, bucket, int(batch_of_bucket)), bucket

    def _slice(self, number: int, bucket: int, batch: int) -> Array:
        """Returns the requests of a bucket's batch in an epoch."""
        first = self._epoch(number).first_request[:, bucket]
        start = batch * self._batch_size
        stop = min(start + self._batch_size, int(first[-1]))
        pieces = [np.empty(0, self._dtype)]
        while start < stop:
            index = _last_at_most(first, start)
            requests = self._window(number, index).requests[bucket]
            pieces.append(requests[start - first[index] : stop - first[index]])
            start = int(first[index + 1])
        return np.concatenate(pieces)

    def _make_epoch(self, number: int) -> "_Epoch":
        deals = [
            self._deal(number, worker) for worker in range(self._num_workers)
        ]
        sizes = [
            [self._counts[shards].sum(axis=0) for shards in windows]
            for windows in deals
        ]
        ends = np.cumsum(sizes, axis=1)  # [workers, windows, buckets]
        # A batch belongs to the first window in which it is full for every
        # worker, or else to the last.
        batch_ends = ends.min(axis=0) // self._batch_size
        batch_ends[-1] = -(-ends[:, -1].max(axis=0) // self._batch_size)
        none = np.zeros_like(batch_ends[:1])
        return _Epoch(
            windows=deals[self._worker],
            first_request=np.concatenate([none, ends[self._worker]]),
            first_batch=np.concatenate([none, batch_ends]),
        )

    def _deal(self, number: int, worker: int) -> list[Array]:
        """Returns the shards of each window of a worker, ascending."""
        shards = np.arange(worker, len(self._counts), self._num_workers)
        if self._seed is not None:
            # No window has this number.
            self._generator(number, self._num_windows, worker).shuffle(shards)
        windows = np.array_split(shards, self._num_windows)
        return [np.sort(window) for window in windows]

    def _make_window(self, number: int, index: int) -> "_Window":
        epoch = self._epoch(number)
        requests = [
            self._requests_of(epoch.windows[index], bucket)
            for bucket in range(self._counts.shape[1])
        ]
        sizes = epoch.first_batch[index + 1] - epoch.first_batch[index]
        batches = np.arange(sizes.sum())
        if self._seed is not None:
            generator = self._generator(number, index, self._worker)
            for own in requests:
                generator.shuffle(own)
            if self._num_workers > 1:
                # One that all workers share, and that is no worker's own.
                generator = self._generator(number, index, self._num_workers)
            generator.shuffle(batches)
        return _Window(requests, batches)

    def _requests_of(self, shards: Array, bucket: int) -> Array:
        """Returns the requests of a bucket in some shards, ascending."""
        pieces = [np.empty(0, self._dtype)]
        for shard in shards.tolist():
            (own,) = np.nonzero(self._buckets[shard] == bucket)
            own += self._first_request[shard]
            pieces.append(own.astype(self._dtype))
        return np.concatenate(pieces)

    def _generator(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed or 0, *purpose])


class _Epoch(NamedTuple):
    """Which requests and batches are whose, one more than the last at the end.

    Attributes:
        windows: The shards of each window.
        first_request: int64 `[num_windows + 1, num_buckets]`, which of the
            epoch's requests of a bucket is the first of a window.
        first_batch: Likewise for batches.
    """

    windows: list[Array]
    first_request: Array
    first_batch: Array


class _Window(NamedTuple):
    """A window in the order in which it is read.

    Attributes:
        requests: Those of each bucket.
        batches: Which of the window's batches each step reads, numbered
            bucket by bucket.
    """

    requests: list[Array]
    batches: Array


def _last_at_most(ascending: Array, value: int) -> int:
    """Returns the last place with at most `value`."""
    return int(np.searchsorted(ascending, value, side="right")) - 1
