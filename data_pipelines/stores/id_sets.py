"""Columns of sets of ids: offsets and values."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.coded_ids import CodedIds
from data_pipelines.stores.hashing import hash_rows

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class IdSets:
    """A column with any number of ids in each row.

    Args:
        offset: uint32 or int64 `[num_rows + 1]`; the ids of row `r` are
            `values[offset[r]]` to `values[offset[r + 1]]`.
        values: Integers.
    """

    offset: Array
    values: Array | CodedIds

    def __len__(self) -> int:
        return len(self.offset) - 1

    def __getitem__(self, rows: Array | slice) -> "IdSets":
        """Returns some rows.

        Args:
            rows: Row numbers, one bool a row, or a slice.
        """
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        elif rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        start = self.offset[rows].astype(np.int64)
        counts = self.offset[rows + 1] - start
        offset = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offset[-1]) + np.repeat(start - offset[:-1], counts)
        return IdSets(_narrow(offset), self.values[places])

    @property
    def longest(self) -> int:
        """The ids of the row that has the most."""
        return int(self.counts.max()) if len(self) else 0

    @property
    def counts(self) -> Array:
        """int64 `[num_rows]`, the ids of each row."""
        offset = self.offset.astype(np.int64)
        return np.asarray(offset[1:] - offset[:-1])

    def map(self, ids: Array) -> "IdSets":
        """Returns the sets with `ids[value]` for each value."""
        return IdSets(self.offset, ids[np.asarray(self.values)])

    def padded(self, width: int) -> Array:
        """Returns `[num_rows, width]`, 0 behind the ids of a row.

        Args:
            width: At least that of the longest.
        """
        is_filled = np.arange(width) < self.counts[:, None]
        found = np.zeros((len(self), width), self.values.dtype)
        found[is_filled] = self.values[int(self.offset[0]) :][: is_filled.sum()]
        return found

    def hashed(self) -> Array:
        """Returns a uint64 for each row, of its ids in their order."""
        start, counts = self.offset.astype(np.int64), self.counts
        row = np.repeat(np.arange(len(self)), counts)
        values = np.asarray(self.values)
        own = hash_rows([np.arange(len(row)) - start[row], values])
        # Differences of a running total, which wraps round as its parts do.
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(own)])
        sums = total[start[1:]] - total[start[:-1]]
        return hash_rows([counts, sums])


Column = Array | CodedIds | IdSets
"""One value a row, or one set of ids."""


def make_sets(counts: Array, values: Array) -> IdSets:
    """Returns sets of so many ids each.

    Args:
        counts: `[num_rows]`.
        values: Their ids, row by row.
    """
    offset = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return IdSets(_narrow(offset), values)


def _narrow(offset: Array) -> Array:
    """Returns offsets in half the bytes where they fit."""
    fits = offset[-1] <= np.iinfo(np.uint32).max
    return offset.astype(np.uint32 if fits else np.int64)
