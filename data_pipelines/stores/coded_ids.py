"""A column of ids that is stored as codes and read as ids.

What a shard of a growing store holds of a value is its code, which never
changes. Whether the value has an id by now is said by one array for all
shards, so that an update need not write them again.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class CodedIds:
    """Reads like an array of ids, as far as columns are read.

    Args:
        codes: Integers of one dimension.
        ids: int32, the id of each code.
    """

    def __init__(self, codes: Array, ids: Array) -> None:
        self.codes = codes
        self.ids = ids

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the ids."""
        return self.ids.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the codes."""
        return self.codes.shape

    def __getitem__(self, rows: Any) -> Array:
        """Returns the ids of some rows."""
        found: Array = self.ids[self.codes[rows]]
        return found

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        """Returns all ids."""
        del copy  # They are always new.
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def tolist(self) -> list[int]:
        """Returns all ids as Python numbers."""
        found: list[int] = self[:].tolist()
        return found
