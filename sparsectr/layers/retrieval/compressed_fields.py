"""Fields of a behavior, each compressed to one number a head.

Axes: B batch, L history length, H heads, J fields, F columns of all fields.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class CompressedFields(keras.layers.Layer):
    """What cross features add to the score of a behavior.

        b_ih = sum_j beta_jh (k_ij . w_jh)

    Args:
        widths: Columns of each of the J fields.
        num_heads: H.

    Call arguments:
        features: float `[B, L, F]`, the fields side by side.

    Returns:
        float `[B, H, L]`.

    Raises:
        ValueError: If there is no field.

    Cost:
        O(L F H): beta and w are multiplied first.
    """

    def __init__(
        self, widths: Sequence[int], num_heads: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not widths or min(widths) < 1:
            raise ValueError(
                "`widths` must be at least one number, each at least 1. "
                f"Received: widths={tuple(widths)}"
            )
        self.widths = tuple(widths)
        self.num_heads = num_heads

    def build(self, features_shape: Any = None) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(sum(self.widths), self.num_heads),
            initializer="glorot_uniform",
        )
        self.scale = self.add_weight(
            name="scale",
            shape=(len(self.widths), self.num_heads),
            initializer="ones",
        )
        self.built = True

    def call(self, features: Tensor) -> Tensor:
        field_of = [
            field
            for field, width in enumerate(self.widths)
            for _ in range(width)
        ]
        scale = ops.take(ops.convert_to_tensor(self.scale), field_of, axis=0)
        kernel = ops.cast(self.kernel * scale, self.compute_dtype)  # [F, H]
        return ops.matmul(
            ops.expand_dims(ops.transpose(kernel), 0),
            ops.transpose(features, (0, 2, 1)),
        )  # [B, H, L]

    def compute_output_shape(self, features_shape: Any) -> Any:
        return (features_shape[0], self.num_heads, features_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "widths": self.widths,
            "num_heads": self.num_heads,
        }
