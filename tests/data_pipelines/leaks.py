"""The leak check: every behavior of every request of a store."""

import numpy as np

from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.store import Store


def check_histories(store: Store) -> int:
    """Looks at all histories and returns how many behaviors it looked at.

    A behavior at or after its request's second is a leak. One strictly
    before it that is not in the history has been lost.
    """
    looked_at = 0
    for shard in store.shards:
        offset = shard.behavior_offset
        times = np.asarray(shard.behavior_time)
        owner = np.repeat(np.arange(shard.num_users), np.diff(offset))
        assert offset[0] == 0
        assert len(owner) == len(times)
        for split in SPLITS:
            requests = shard.splits[split]
            columns = zip(
                requests.user.tolist(),
                requests.time.tolist(),
                requests.history_end.tolist(),
                strict=True,
            )
            for user, time, end in columns:
                start, stop = offset[user], offset[user + 1]
                assert start <= end <= stop
                assert (owner[start:end] == user).all()
                assert (times[start:end] < time).all(), "a leak"
                assert (times[end:stop] >= time).all(), "a lost behavior"
                looked_at += int(end - start)
    return looked_at
