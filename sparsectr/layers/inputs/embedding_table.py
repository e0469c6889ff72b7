"""One embedding table, read and updated row by row."""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor
from sparsectr.schema import OUT_OF_VOCABULARY_ID


@keras.saving.register_keras_serializable(package="sparsectr")
class EmbeddingTable(keras.layers.Layer):
    """Rows of a table by id.

    Args:
        num_rows: Rows, those of padding and out-of-vocabulary included.
        width: Columns.

    Call arguments:
        ids: int32 tensor of any shape. An id outside the table reads the
            out-of-vocabulary row: serving sees ids that training never did.

    Returns:
        float tensor with one more axis of size `width`.

    Raises:
        ValueError: If `num_rows` is below 2 or `width` below 1.

    Numerics:
        On TensorFlow the gather reads the variable itself, so that its
        gradient is `IndexedSlices` and neither the forward pass nor the
        update touches the rest of the table. `keras.layers.Embedding` reads
        the whole table as a tensor and forces a copy of it at each update.
    """

    def __init__(self, num_rows: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_rows < 2:
            raise ValueError(
                "`num_rows` must be at least 2, padding and "
                f"out-of-vocabulary. Received: num_rows={num_rows}"
            )
        if width < 1:
            raise ValueError(
                f"`width` must be at least 1. Received: width={width}"
            )
        self.num_rows = num_rows
        self.width = width

    def build(self, ids_shape: Any = None) -> None:
        self.rows = self.add_weight(
            name="rows",
            shape=(self.num_rows, self.width),
            initializer="uniform",
            # The whole table is never cast; the gathered rows are.
            autocast=False,
        )
        self.built = True

    def call(self, ids: Tensor) -> Tensor:
        outside = ops.logical_or(ids < 0, ids >= self.num_rows)
        ids = ops.where(outside, OUT_OF_VOCABULARY_ID, ids)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            rows = tf.gather(self.rows.value, ids)
        else:
            rows = ops.take(self.rows, ids, axis=0)
        return ops.cast(rows, self.compute_dtype)

    def compute_output_shape(self, ids_shape: Any) -> tuple[int | None, ...]:
        return (*ids_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_rows": self.num_rows,
            "width": self.width,
        }
