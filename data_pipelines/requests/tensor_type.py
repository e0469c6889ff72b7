"""Type of a tensor that goes to a model or comes from it."""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class TensorType(NamedTuple):
    """Type of a tensor: NumPy's name or "string", and -1 for an open size."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def set_size(self) -> int | None:
        """How many values a set of an input is padded to, `None` without."""
        size = self.shape[-1] if self.shape else -1
        return size if size >= 0 else None

    def holds(self, array: Array) -> bool:
        """Returns whether an array has this type."""
        dtype = "string" if array.dtype == object else array.dtype.name
        return (
            dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(
                expected in (-1, size)
                for expected, size in zip(self.shape, array.shape, strict=True)
            )
        )
