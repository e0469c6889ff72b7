"""Everything once an epoch, window by window, for one worker or several."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.reading.batch_order import BatchOrder

# The bucket of each request of each shard: no two shards of one size, one of
# them empty, and a bucket that is rare.
UNEVEN = [
    [0, 1, 1, 0, 2, 0, 1],
    [],
    [1] * 11,
    [0, 0, 1],
    [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 3],
]


def _orders(
    shards: list[list[int]], num_workers: int = 1, **options: Any
) -> list[BatchOrder]:
    """Returns the order of each worker."""
    options = {"batch_size": 4, "seed": 7, "window_size": 2, **options}
    buckets = [np.array(shard, np.uint8) for shard in shards]
    counts = np.array([np.bincount(b, minlength=4) for b in buckets])
    return [
        BatchOrder(
            counts,
            {i: b for i, b in enumerate(buckets) if i % num_workers == worker},
            worker=worker,
            num_workers=num_workers,
            **options,
        )
        for worker in range(num_workers)
    ]


def _walk(order: BatchOrder, epoch: int = 0) -> list[tuple[list[int], int]]:
    first = epoch * order.num_batches
    steps = range(first, first + order.num_batches)
    return [(r.tolist(), b) for r, b in map(order.requests, steps)]


def _even(num_shards: int, size: int) -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 4, size).tolist() for _ in range(num_shards)]


@settings(max_examples=150, deadline=None)
@given(
    shards=st.lists(
        st.lists(st.integers(0, 3), max_size=20), min_size=1, max_size=9
    ),
    batch_size=st.integers(1, 9),
    window_size=st.integers(1, 10),
    num_workers=st.integers(1, 3),
    seed=st.none() | st.integers(0, 2**40),
    epoch=st.integers(0, 3),
)
def test_everything_once_an_epoch(
    shards, batch_size, window_size, num_workers, seed, epoch
):
    num_workers = min(num_workers, len(shards))
    bucket = np.concatenate([np.array(shard, int) for shard in shards])
    shard_of = np.repeat(np.arange(len(shards)), [len(s) for s in shards])
    options = {
        "batch_size": batch_size,
        "window_size": window_size,
        "seed": seed,
    }
    orders = _orders(shards, num_workers, **options)
    assert len({order.num_batches for order in orders}) == 1
    if not orders[0].num_batches:
        assert bucket.size == 0
        return
    walks = [_walk(order, epoch) for order in orders]
    seen = [n for walk in walks for numbers, _ in walk for n in numbers]
    assert sorted(seen) == list(range(bucket.size))
    for worker, walk in enumerate(walks):
        # All read the same bucket in the same step.
        assert [b for _, b in walk] == [b for _, b in walks[0]]
        sizes: dict[int, list[int]] = {}
        for numbers, own in walk:
            assert (bucket[numbers] == own).all()
            assert (shard_of[numbers] % num_workers == worker).all()
            sizes.setdefault(own, []).append(len(numbers))
        for found in sizes.values():
            # Full ones, at most one that is not, and empty ones.
            descending = sorted(found, reverse=True)
            total = sum(found)
            assert descending[: total // batch_size] == [batch_size] * (
                total // batch_size
            )
            assert sum(0 < size < batch_size for size in found) <= 1
    # No more batches than the worker with the most requests needs.
    needed = 0
    for own in range(4):
        totals = [
            int(((bucket == own) & (shard_of % num_workers == worker)).sum())
            for worker in range(num_workers)
        ]
        needed += -(-max(totals) // batch_size)
    assert orders[0].num_batches == needed


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_step_needs_none_before_it(num_workers: int) -> None:
    for worker, order in enumerate(_orders(UNEVEN, num_workers)):
        count = 3 * order.num_batches
        walked = [order.requests(step) for step in range(count)]
        for step in (0, 5, order.num_batches - 1, order.num_batches, count - 1):
            fresh = _orders(UNEVEN, num_workers)[worker]
            requests, bucket = fresh.requests(step)
            np.testing.assert_array_equal(requests, walked[step][0])
            assert bucket == walked[step][1]
        # Going back is possible, too.
        np.testing.assert_array_equal(order.requests(1)[0], walked[1][0])


def test_epochs_and_seeds_differ() -> None:
    shards = _even(6, 30)
    walks = [_walk(_orders(shards)[0], epoch) for epoch in range(3)]
    walks.append(_walk(_orders(shards, seed=8)[0]))
    for index, walk in enumerate(walks):
        for other in walks[:index]:
            # Other batches, and not the same ones in another order.
            assert {frozenset(n) for n, _ in walk}.isdisjoint(
                frozenset(n) for n, _ in other
            )


def test_windows_and_workers_differ() -> None:
    # One shard a window, and a batch is the whole of it.
    orders = _orders([[0] * 30] * 6, 2, batch_size=30, window_size=1)
    found = {
        tuple(number % 30 for number in numbers)
        for order in orders
        for numbers, _ in _walk(order)
    }
    assert len(found) == 6


def test_a_batch_touches_few_shards() -> None:
    (order,) = _orders(_even(12, 200), batch_size=8, window_size=3)
    touched = [{n // 200 for n in numbers} for numbers, _ in _walk(order)]
    # Shards as they first come, and so window by window.
    shards = list(dict.fromkeys(shard for own in touched for shard in own))
    windows = [set(shards[start : start + 3]) for start in range(0, 12, 3)]
    places = []
    num_mixed = 0
    for own in touched:
        before, *more = [i for i, window in enumerate(windows) if own & window]
        assert more in ([], [before + 1])
        places.append(before + len(more))
        num_mixed += len(more)
    assert places == sorted(places)
    # A bucket carries at most one batch over from one window to the next.
    assert 0 < num_mixed <= 4 * 3
    # Not the neighbors in the store.
    assert {0, 1, 2} not in windows


def test_all_shards_in_one_window_are_mixed() -> None:
    (order,) = _orders(_even(5, 60), batch_size=20, window_size=5)
    touched = [{n // 60 for n in numbers} for numbers, _ in _walk(order)]
    assert sum(len(t) == 5 for t in touched) > len(touched) / 2


def test_windows_are_even() -> None:
    # Three and two shards, and not four and one that nothing is mixed with.
    (order,) = _orders(_even(5, 60), batch_size=20, window_size=4, seed=None)
    touched = [{n // 60 for n in numbers} for numbers, _ in _walk(order)]
    assert max(max(t) for t in touched[:3]) == 2


def test_without_a_seed_the_order_is_the_store_s() -> None:
    (order,) = _orders(UNEVEN, seed=None, window_size=99)
    walk = _walk(order)
    assert walk == _walk(order, 1)
    buckets = [bucket for _, bucket in walk]
    assert buckets == sorted(buckets)
    for bucket in set(buckets):
        numbers = [n for own, b in walk if b == bucket for n in own]
        assert numbers == sorted(numbers)


def test_no_permutation_of_all_is_held() -> None:
    size, num_shards = 20_000, 64
    buckets = {s: np.zeros(size, np.uint8) for s in range(num_shards)}
    counts = np.full((num_shards, 1), size)
    tracemalloc.start()
    order = BatchOrder(counts, buckets, batch_size=1000, seed=0, window_size=4)
    for step in range(order.num_batches):
        order.requests(step)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As int32 it would be four bytes a request.
    assert peak < 1.5 * size * num_shards
