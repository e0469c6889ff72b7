"""Which requests of a store are read, and how much of their histories."""

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.reading.frozen_statistics import frozen_statistics
from data_pipelines.stores.history_ends import history_ends
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.split_parts import (
    in_part,
    is_cut,
    newest_from,
    split_of,
)
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import LATEST_TIME
from sparsectr.statistic import USER_ID

Array = npt.NDArray[Any]


class StorePart:
    """Requests of a store, shard by shard, with what each reads.

    Args:
        store: Where the requests are.
        name: "train", "test", or a part of the former: "train_older" or
            "validation".
        config: How long histories are, and how many shards are held.
        newest_share: Of the requests of the part, the share that is read,
            the newest ones.
        between: Unix seconds of the first that is read, and one past those of
            the last; `None` for all.
        frozen_history: Whether every request has the history that its user
            had at the first one of the part.

    Attributes:
        split: The split that holds the part.
        first_time: Unix seconds; requests before it are not read.
        shard: Returns a shard by its number. The columns of a few are mapped.

    Raises:
        InputError: If the store has no validation time and the part needs it,
            or if histories cannot be frozen.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        config: DataConfig,
        *,
        newest_share: float = 1.0,
        between: tuple[int, int] | None = None,
        frozen_history: bool = False,
    ) -> None:
        if frozen_history:
            _check_frozen(store, name)
        self.split = split_of(name)
        self._store = store
        self._name = name
        self._config = config
        self._frozen_history = frozen_history
        self._validation_time = store.validation_time if is_cut(name) else None
        self.shard = functools.lru_cache(2 * config.shuffle_shards)(self._open)
        self.first_time, self._end_time = between or (0, LATEST_TIME)
        if newest_share < 1.0:
            self.first_time = self._newest_from(newest_share)

    def is_read(self, shard: Shard) -> Array:
        """Returns which requests of the split are read."""
        columns = shard.splits[self.split]
        time = np.asarray(columns.time)
        is_read: Array = (time >= self.first_time) & (time < self._end_time)
        if self._validation_time is not None:
            is_read &= in_part(columns, self._name, self._validation_time)
        return is_read

    def history_lengths(
        self, shard: Shard, own: Array | slice = slice(None)
    ) -> Array:
        """Returns how many behaviours each request of a shard reads."""
        columns = shard.splits[self.split]
        start = shard.behavior_offset[columns.user[own]]
        length = self.history_end(shard, own) - start
        return np.minimum(length, self._config.max_history, out=length)

    def history_end(self, shard: Shard, own: Array | slice) -> Array:
        """Returns where the history of requests of a shard ends."""
        columns = shard.splits[self.split]
        shard_ends = functools.partial(
            history_ends, shard, columns, self._config.history_delay
        )
        if not self._frozen_history:
            return shard_ends(own)
        return shard_ends(self._first_of_users(columns, own))

    def _open(self, index: int) -> Shard:
        """Maps a shard anew.

        The maps of `Store` live as long as the store, and what was once read
        through a map counts as held by the process until the map goes.
        """
        return self._with_frozen_statistics(self._store.open_shard(index))

    def _with_frozen_statistics(self, shard: Shard) -> Shard:
        """Returns a shard whose statistics are as old as the histories."""
        columns = shard.splits[self.split]
        if not self._frozen_history or not self._store.schema.statistics:
            return shard
        first = self._first_of_users(columns, slice(None))
        frozen = frozen_statistics(self._store, shard, self.split, first)
        columns = dataclasses.replace(
            columns, candidates={**columns.candidates, **frozen}
        )
        return dataclasses.replace(
            shard, splits={**shard.splits, self.split: columns}
        )

    def _newest_from(self, share: float) -> int:
        """Returns the time from which on the part is read."""
        times = []
        for index in range(len(self._store.shards)):
            shard = self.shard(index)
            time = np.asarray(shard.splits[self.split].time)
            times.append(time[self.is_read(shard)])
        return newest_from(times, share) if sum(map(len, times)) else 0

    def _first_of_users(
        self, columns: RequestColumns, own: Array | slice
    ) -> Array:
        """Returns the row of the first request of the part of each's user."""
        # A user's requests stand together, in the order of time.
        rows = every = np.arange(len(columns.user))
        if self._validation_time is not None:
            rows = rows[in_part(columns, self._name, self._validation_time)]
        if not len(rows):
            return every[own]
        first = np.searchsorted(columns.user[rows], columns.user[own])
        # What is behind the last is of a user without a request of the part.
        return rows[np.minimum(first, len(rows) - 1)]


def _check_frozen(store: Store, part: str) -> None:
    """Raises InputError if a user's requests are in several shards."""
    if len(store.updates) < 2:
        return
    of_users = [s.name for s in store.schema.statistics if USER_ID in s.fields]
    if part != "test" or of_users:
        what = f"statistics.{of_users[0]}" if of_users else f"the {part} part"
        raise InputError(
            f"{store.path} has days that were added, so that {what} cannot be "
            "frozen with the history. Prepare all days at once."
        )
