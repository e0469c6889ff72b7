"""How long before the request a behavior was, in a few buckets.

Axes: B batch, L history length.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.ops.tensor import Tensor
from sparsectr.time_zone import SECONDS_PER_DAY


@keras.saving.register_keras_serializable(package="sparsectr")
class GapBuckets(keras.layers.Layer):
    """A row of a table for the number of bounds that the gap has reached.

    Args:
        width: Columns of the table.
        bounds: Ascending, in days.
        table_name: The table's name, as the recipe's `tables` has it.

    Call arguments:
        time: int64 `[B, L]`, Unix seconds, 0 for padding.
        request_time: int64 `[B]`, Unix seconds.

    Returns:
        float `[B, L, width]`.
    """

    def __init__(
        self, width: int, bounds: Sequence[int], table_name: str, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.width = width
        self.bounds = tuple(bounds)
        self.table_name = table_name
        # The first is that of padding.
        self.table = EmbeddingTable(
            2 + len(self.bounds),
            width,
            name=f"table_{table_name}",
            dtype=self.dtype_policy,
        )

    def build(
        self, time_shape: Any = None, request_time_shape: Any = None
    ) -> None:
        self.table.build()
        self.built = True

    def call(self, time: Tensor, request_time: Tensor) -> Tensor:
        gap = ops.expand_dims(request_time, 1) - time  # [B, L]
        ids = ops.ones_like(time, dtype="int32")
        for bound in self.bounds:
            ids = ids + ops.cast(gap >= bound * SECONDS_PER_DAY, "int32")
        return self.table(ops.where(time > 0, ids, 0))

    def compute_output_shape(
        self, time_shape: Any, request_time_shape: Any
    ) -> Any:
        return (*time_shape, self.width)

    def compute_output_spec(self, time: Tensor, request_time: Tensor) -> Any:
        return keras.KerasTensor((*time.shape, self.width), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "bounds": self.bounds,
            "table_name": self.table_name,
        }
