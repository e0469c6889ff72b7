"""Real requests to warm up and to verify with."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.batches import Batches
from data_pipelines.store import Store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError

Batch = dict[str, npt.NDArray[Any]]


def held_out_batches(
    store: Store, config: DataConfig, batch_size: int, count: int
) -> list[Batch]:
    """Returns a few batches of real requests, the longest histories last.

    Args:
        store: Where they come from: its test split, or its training split if
            that is empty.
        config: Lengths and buckets of the run.
        batch_size: Requests of a batch, at most.
        count: Number of batches, at most.

    Returns:
        What the training reader makes of them, without the rows that only
        fill a batch.

    Raises:
        InputError: If the store has no requests at all.
    """
    split = "test" if store.num_requests("test") else "train"
    batches = Batches(store, split, config, batch_size, None)
    if batches.num_requests == 0:
        raise InputError(
            f"{store.path} has no requests to warm up and to verify with."
        )
    # The order is window by window and bucket by bucket, so steps that are
    # far apart differ in length.
    steps = np.linspace(
        0, batches.num_batches - 1, min(count, batches.num_batches)
    )
    found = []
    for step in steps.astype(int).tolist():
        batch = batches.batch(step)
        is_real = batch["candidate_mask"].any(axis=1)
        found.append({name: value[is_real] for name, value in batch.items()})
    return sorted(found, key=lambda batch: batch["behavior_time"].shape[1])
