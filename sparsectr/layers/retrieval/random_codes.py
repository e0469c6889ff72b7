"""Codes of vectors by the side of random planes on which they are.

Axes: d width, m bits.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class RandomCodes(keras.layers.Layer):
    """SimHash: one bit for each of m random directions, as -1 or 1.

        c = 2 * 1{x R > 0} - 1,   Hamming(c, c') = (m - c . c') / 2

    R is drawn once and saved, and never trained: what serves must have the
    codes of what was trained.

    Args:
        num_bits: m.

    Call arguments:
        rows: float `[..., d]`.

    Returns:
        float32 `[..., m]`, without a gradient.

    Raises:
        ValueError: If there is no bit.

    Numerics:
        float32 under every policy: a rounded product may change its sign.
    """

    def __init__(self, num_bits: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if num_bits < 1:
            raise ValueError(
                f"`num_bits` must be at least 1. Received: num_bits={num_bits}"
            )
        self.num_bits = num_bits

    def build(self, rows_shape: Any) -> None:
        self.directions = self.add_weight(
            name="directions",
            shape=(rows_shape[-1], self.num_bits),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            dtype="float32",
            trainable=False,
            autocast=False,
        )
        self.built = True

    def call(self, rows: Tensor) -> Tensor:
        rows = ops.cast(ops.stop_gradient(rows), "float32")
        sides = ops.matmul(rows, self.directions)  # [..., m]
        return ops.where(sides > 0.0, 1.0, -1.0)

    def compute_output_shape(self, rows_shape: Any) -> Any:
        return (*rows_shape[:-1], self.num_bits)

    def compute_output_spec(self, rows: Tensor) -> Any:
        return keras.KerasTensor((*rows.shape[:-1], self.num_bits), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bits": self.num_bits}
