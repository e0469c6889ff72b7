"""The raw values of a field of ids, one a row or any number of them."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.stores.id_sets import Column, make_sets
from sparsectr.schema import CategoricalField

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldValues:
    """The values of a column.

    Args:
        values: All of them, row by row.
        counts: `[num_rows]`, how many a row has; `None` for one in each.
        num_cut: Rows of which the last values were left out.
        num_nulls: Values within sets that were missing, and left out.
    """

    values: pa.ChunkedArray
    counts: Array | None = None
    num_cut: int = 0
    num_nulls: int = 0

    def column_of(self, codes: Array) -> Column:
        """Returns the column of the store.

        Args:
            codes: An integer for each value.
        """
        if self.counts is None:
            return codes
        return make_sets(self.counts, codes)

    def of_each_value(self, rows: Array) -> Array:
        """Returns what is said of a row for each of its values."""
        return rows if self.counts is None else np.repeat(rows, self.counts)

    def incomplete(self, name: str) -> dict[str, int]:
        """Returns what was left out, for the report.

        Args:
            name: What the field is called there.
        """
        if self.counts is None:
            return {}
        return {
            f"sets of {name} that were cut": self.num_cut,
            f"nulls in sets of {name}": self.num_nulls,
        }


def field_values(
    column: pa.ChunkedArray, field: CategoricalField
) -> FieldValues:
    """Returns the values of a column of one value, or one list, a row.

    A list that is null is one without a value. Of more than
    `field.max_values` the first so many are kept, as the served graph does.
    """
    if field.max_values is None:
        return FieldValues(values=column)
    lists = column.combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    counts = counts.astype(np.int64)
    values = lists.flatten()
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    within = place < field.max_values
    is_null = values.is_null().to_numpy(zero_copy_only=False)
    kept = within & ~is_null
    return FieldValues(
        values=pa.chunked_array([values.filter(pa.array(kept))], values.type),
        counts=np.bincount(row[kept], minlength=len(counts)),
        num_cut=int(np.count_nonzero(counts > field.max_values)),
        num_nulls=int(np.count_nonzero(within & is_null)),
    )
