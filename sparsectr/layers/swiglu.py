"""SwiGLU: the feed-forward network of a SparseBlock."""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class SwiGLU(keras.layers.Layer):
    """Gated feed-forward network (Eq. 2).

        (swish(x W1) * x W2) W3

    Args:
        hidden_width: Columns of W1 and W2; 3 d in the paper.

    Call arguments:
        inputs: float `[..., d]`.

    Returns:
        float `[..., d]`.

    Raises:
        ValueError: If `hidden_width` is below 1.
    """

    def __init__(self, hidden_width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hidden_width < 1:
            raise ValueError(
                "`hidden_width` must be at least 1. "
                f"Received: hidden_width={hidden_width}"
            )
        self.hidden_width = hidden_width

    def build(self, input_shape: Any) -> None:
        def dense(units: int, name: str) -> keras.layers.Dense:
            return keras.layers.Dense(
                units, use_bias=False, name=name, dtype=self.dtype_policy
            )

        self.gate = dense(self.hidden_width, "gate")
        self.up = dense(self.hidden_width, "up")
        self.down = dense(input_shape[-1], "down")
        self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.hidden_width))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self.down(ops.silu(self.gate(inputs)) * self.up(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_width": self.hidden_width}
