"""A block of rows of a raw file that knows where each row stands."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sparsectr.errors import InputError

Array = npt.NDArray[Any]
Where = Callable[[int], str]


class RawRows:
    """Some consecutive rows, which a data set's module checks and converts.

    Args:
        table: The rows, with a missing value as null.
        first_row: Number of the first row; rows later in the file have higher
            numbers.
        where: Tells file and line of a row number, for messages.

    Attributes:
        table: The rows. A conversion replaces it by one of as many rows.
        row: int64, the row number of each of them.
        num_read: Rows that there were before any was dropped.
        dropped: How many rows were dropped, by reason.
    """

    def __init__(self, table: pa.Table, first_row: int, where: Where) -> None:
        self.table = table
        self.num_read = len(table)
        self.row = np.arange(first_row, first_row + len(table))
        self.dropped: dict[str, int] = {}
        self._where = where

    def of(
        self, name: str, values: pa.Array | pa.ChunkedArray, parent: Array
    ) -> "RawRows":
        """Returns values within these rows, to be checked like a column.

        Args:
            name: The column that they are in.
            values: Any number of them.
            parent: For each, which of the rows it is in.
        """
        inner = RawRows(pa.table({name: values}), 0, self._where)
        inner.row = self.row[parent]
        return inner

    def require(
        self, valid: pa.ChunkedArray | Array, rule: str, *shown: str
    ) -> None:
        """Checks that a condition holds in every row.

        Args:
            valid: One boolean a row; null is false.
            rule: What is wrong with the row where it is false.
            *shown: Columns whose values the message shows.

        Raises:
            InputError: If it does not; the message names the first such row.
        """
        wrong = np.flatnonzero(~_booleans(valid))
        if not len(wrong):
            return
        place = int(wrong[0])
        values = ", ".join(
            f"{name}={self.table[name][place].as_py()!r}" for name in shown
        )
        received = f" Received: {values}" if shown else ""
        where = self._where(int(self.row[place]))
        raise InputError(f"{where}: {rule}.{received}")

    def drop_unless(self, valid: pa.ChunkedArray | Array, reason: str) -> None:
        """Drops and counts the rows in which a condition does not hold."""
        kept = _booleans(valid)
        dropped = len(kept) - int(np.count_nonzero(kept))
        self.dropped[reason] = self.dropped.get(reason, 0) + dropped
        if dropped:
            self.table = self.table.filter(pa.array(kept))
            self.row = self.row[kept]


def _booleans(values: pa.ChunkedArray | Array) -> Array:
    if isinstance(values, np.ndarray):
        return values
    found: Array = values.fill_null(False).to_numpy()
    return found
