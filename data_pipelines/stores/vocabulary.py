"""Raw values to the row numbers of an embedding table."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.stores.hashing import fingerprints, split_mix
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    Table,
)

Array = npt.NDArray[Any]


class Vocabulary:
    """Turns the raw values of one table into ids.

    A missing value is id 0: a null, and what stands for one where there are
    none, `missing_value`. A value outside a frozen vocabulary is id 1, one
    in it has its place in `values` plus 2. A value of a hashed table is 2 or
    more, always the same for the same value.

    Args:
        table: The table. For a vocabulary, its size is set from `values`.
        values: Raw values of ids 2, 3, ...; `None` for a hashed table.

    Attributes:
        table: The table with its size.
        values: Raw values of ids 2, 3, ... as an array, or `None`.

    Raises:
        ValueError: If `values` do not fit the table.
    """

    def __init__(
        self, table: Table, values: pa.Array | Sequence[Any] | None = None
    ) -> None:
        if (values is None) != (table.kind == "hashed"):
            raise ValueError(
                f"A vocabulary needs `values` and a hashed table has none "
                f"(table {table.name!r}, kind {table.kind!r})."
            )
        if table.kind == "hashed" and table.size == NUM_RESERVED_IDS:
            raise ValueError(f"Table {table.name!r} has no row to hash into.")
        self.values: pa.Array | None = None
        self.table = table
        if values is not None:
            try:
                self.values = pa.array(values, type=arrow_type(table))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise ValueError(
                    f"Values of table {table.name!r} must be of type "
                    f"{table.value_type}: {error}"
                ) from error
            if pc.any(_is_missing(table, self.values)).as_py():
                raise ValueError(
                    f"Table {table.name!r} has a row for a missing value; "
                    "prepare the data again."
                )
            size = len(self.values) + NUM_RESERVED_IDS
            self.table = dataclasses.replace(table, size=size)

    @classmethod
    def from_counts(cls, table: Table, counts: pa.Table) -> "Vocabulary":
        """Returns the vocabulary of the values that are frequent enough.

        The most frequent value comes first, the smaller of two equally
        frequent ones before the larger, so that equal data give equal ids.

        Args:
            table: The table.
            counts: Columns `value`, each value once, and `count`, its
                occurrences in the training period.
        """
        if table.kind == "hashed":
            return cls(table)
        kept = counts.filter(pc.invert(_is_missing(table, counts["value"])))
        kept = kept.filter(pc.field("count") >= table.min_count)
        kept = kept.sort_by([("count", "descending"), ("value", "ascending")])
        return cls(table, kept["value"].combine_chunks())

    def encode(self, column: pa.ChunkedArray) -> Array:
        """Returns the ids of `column` in the smallest dtype of the table."""
        size = self.table.size
        if size is None:
            raise ValueError(f"Table {self.table.name!r} has no size.")
        if self.values is None:
            ids = hash_values(column, size)
        else:
            places = pc.index_in(column, value_set=self.values)
            known = places.is_valid().to_numpy()
            ids = places.fill_null(0).to_numpy() + NUM_RESERVED_IDS
            ids = np.where(known, ids, OUT_OF_VOCABULARY_ID)
        ids[_is_missing(self.table, column).to_numpy()] = PADDING_ID
        return ids.astype(id_dtype(size))


def missing_value(table: Table) -> int | str:
    """Returns the raw value that means missing, as a null does.

    A tensor has no nulls, so that a client sends it; in a file it means the
    same.
    """
    return -(1 << 63) if table.value_type == "int" else ""


def _is_missing(table: Table, values: Any) -> Any:
    missing = pa.scalar(missing_value(table), arrow_type(table))
    return pc.equal(values, missing).fill_null(True)


def arrow_type(table: Table) -> pa.DataType:
    """Returns the arrow type of the raw values of `table`."""
    return pa.int64() if table.value_type == "int" else pa.string()


def id_dtype(size: int) -> npt.DTypeLike:
    """Returns the smallest of uint8, uint16 and int32 that holds the ids."""
    if size <= 1 << 8:
        return np.uint8
    return np.uint16 if size <= 1 << 16 else np.int32


def hash_values(column: pa.ChunkedArray, size: int) -> Array:
    """Returns ids from 2 to `size - 1`, spread evenly whatever the values.

    Args:
        column: Integers or texts; what stands for a null means nothing.
        size: Rows of the table.
    """
    if pa.types.is_integer(column.type):
        numbers = column.fill_null(0).to_numpy().view(np.uint64)
    else:
        numbers = fingerprints(column.fill_null(""))
    ids: Array = hashed_ids(numbers, size)
    return ids.astype(np.int64)


def hashed_ids(
    numbers: Any,
    size: int,
    right_shift: Callable[[Any, Any], Any] = np.right_shift,
    uint64: Callable[[int], Any] = np.uint64,
) -> Any:
    """`hash_values` in any library of arrays, of and to uint64.

    The preparation runs it in NumPy and the served graph in TensorFlow.

    Args:
        numbers: Integers, or the fingerprints of texts, their bits taken as
            uint64 of the library.
        size: Rows of the table.
        right_shift: The library's shift of unsigned numbers.
        uint64: Makes one of its numbers.
    """
    rows = split_mix(numbers, right_shift, uint64) % uint64(
        size - NUM_RESERVED_IDS
    )
    return rows + uint64(NUM_RESERVED_IDS)
