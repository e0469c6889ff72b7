"""How often each integer occurs, gathered block by block."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class IntegerCounts:
    """Exact counts of integers from 0 on, in memory of the largest one.

    Attributes:
        counts: int64 `[largest + 1]`, how often each integer was added.
    """

    counts: Array

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)

    def add(self, values: Array, times: Array | None = None) -> None:
        """Adds integers.

        Args:
            values: The integers, none below 0.
            times: How often each is added; `None` for once.
        """
        # float64 where `times` is given, and exact: far below 2^53.
        found = np.bincount(values, times, len(self.counts)).astype(np.int64)
        found[: len(self.counts)] += self.counts
        self.counts = found

    @property
    def total(self) -> int:
        """How many integers were added."""
        return int(self.counts.sum())

    @property
    def sum(self) -> int:
        """Sum of the integers that were added."""
        return int(self.counts @ np.arange(len(self.counts)))

    def between(self, start: int, end: int | None = None) -> int:
        """Returns how many are at least `start` and below `end`."""
        return int(self.counts[start:end].sum())

    def percentile(self, percent: int) -> int | None:
        """Returns the smallest integer that `percent` % do not exceed.

        The smallest of all for 0, the largest for 100, `None` if there are
        none. It is always one of the integers: nothing is interpolated.
        """
        if self.total == 0:
            return None
        rank = max(-(-percent * self.total // 100), 1)
        return int(np.searchsorted(np.cumsum(self.counts), rank))
