"""The parts of a store by time, cut out of its two splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard, count_requests

Array = npt.NDArray[Any]

PARTS = ("train_older", "validation", "test")
"""What a store falls into: before the validation time, from it to the test
time, and from there on. The first two together are "train"."""


def split_of(part: str) -> str:
    """Returns the split that holds the requests of a part."""
    if part not in (*PARTS, "train"):
        raise ValueError(
            f"`part` must be one of {('train', *PARTS)}. Received: part={part}"
        )
    return "test" if part == "test" else "train"


def is_cut(part: str) -> bool:
    """Whether a part is less than its split."""
    return part in ("train_older", "validation")


def in_part(requests: RequestColumns, part: str, validation_time: int) -> Array:
    """Returns which requests of its split are in a part that is cut.

    Args:
        requests: Those of "train".
        part: "train_older" or "validation".
        validation_time: Unix seconds at which the latter begins.

    Returns:
        bool `[num_requests]`.
    """
    is_validation = np.asarray(requests.time) >= validation_time
    return is_validation if part == "validation" else ~is_validation


def newest_from(times: Sequence[Array], share: float) -> int:
    """Returns from when on requests are the newest share of some.

    Args:
        times: Unix seconds of the requests, in parts.
        share: Above 0, at most 1.

    Returns:
        Unix seconds; at least the share is from then on, those of one second
        together.
    """
    every = np.concatenate(times)
    older = min(int(len(every) * (1.0 - share)), len(every) - 1)
    return int(np.partition(every, older)[older])


def count_rows(shard: Shard, validation_time: int) -> dict[str, Any]:
    """Returns the numbers of rows, those of the parts among them."""
    requests = shard.splits["train"]
    return shard.counts() | {
        part: count_requests(requests, in_part(requests, part, validation_time))
        for part in PARTS
        if is_cut(part)
    }
