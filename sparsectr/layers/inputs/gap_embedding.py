"""How long before the request a behaviour was, as an embedding.

Axes: B batch, L history length.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.time_field_ids import log_gap
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS

NUM_ROWS = TIME_FIELDS[GAP_TO_REQUEST].num_rows
"""Rows of the table: padding, and one for each power of two of seconds."""


@keras.saving.register_keras_serializable(package="sparsectr")
class GapEmbedding(keras.layers.Layer):
    """A row of a table for `floor(log2(request time - behaviour's time))`.

    For models to which the gap belongs whatever the schema says: SIM, BST,
    LONGER, STCA. A schema's own time field `gap_to_request` is another table.

    Args:
        width: Columns of the table.
        table_name: The table's name, as the recipe's `tables` has it.

    Call arguments:
        time: int64 `[B, L]`, Unix seconds, 0 for padding.
        request_time: int64 `[B]`, Unix seconds.

    Returns:
        float `[B, L, width]`.
    """

    def __init__(
        self, width: int, table_name: str = "gap", **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.width = width
        self.table_name = table_name
        self.table = EmbeddingTable(
            NUM_ROWS, width, name=f"table_{table_name}", dtype=self.dtype_policy
        )

    def build(
        self, time_shape: Any = None, request_time_shape: Any = None
    ) -> None:
        self.table.build()
        self.built = True

    def call(self, time: Tensor, request_time: Tensor) -> Tensor:
        ids = 1 + log_gap(time, ops.expand_dims(request_time, 1))
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
            "table_name": self.table_name,
        }
