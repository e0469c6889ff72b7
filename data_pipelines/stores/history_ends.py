"""Where the history of a request ends in a shard."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard

Array = npt.NDArray[Any]


def history_ends(
    shard: Shard,
    requests: RequestColumns,
    delay: int = 0,
    chosen: Array | slice = slice(None),
) -> Array:
    """Returns the behavior rows before which histories end.

    Args:
        shard: Users and their behaviors.
        requests: A split of `shard`.
        delay: Seconds that a behavior needs to be known: the last of a history
            is as old as that at its request. With 0, all before the request.
        chosen: Which requests.

    Returns:
        int64 `[requests]`, exclusive ends.

    Cost:
        With a delay, as many reads of times at random places as a binary
        search has steps, of all requests at once.
    """
    end: Array = requests.history_end[chosen]
    if not delay:
        return end
    latest = requests.time[chosen].astype(np.int64) - delay
    low = np.array(shard.behavior_offset[requests.user[chosen]], np.int64)
    high = np.array(end, np.int64)
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_in = np.zeros_like(is_open)
        is_in[is_open] = shard.behavior_time[middle[is_open]] <= latest[is_open]
        low = np.where(is_in, middle + 1, low)
        high = np.where(is_open & ~is_in, middle, high)
    return low
