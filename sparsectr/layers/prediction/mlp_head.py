"""The multilayer perceptron that ends a model.

Axes: B batch, C candidates, h hidden width.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.prediction.dice import Dice
from sparsectr.ops.tensor import Tensor

ACTIVATIONS = ("relu", "leaky_relu", "dice")


@keras.saving.register_keras_serializable(package="sparsectr")
class MLPHead(keras.layers.Layer):
    """Click logits from rows of candidates and what they have in common.

        x_0 = [row, shared],   x_i = f(x_(i-1) W_i + b_i),   logit = x_n w + b

    The paper's fair head, `[32, 1]`, has one hidden layer of 32.

    Args:
        hidden_units: Width of each hidden layer, at least one.
        activation: f: "relu", "leaky_relu" or "dice".

    Call arguments:
        rows: float `[B, C, k]`.
        shared: float `[B, j]`, the same for all candidates of a request, or
            `None`.
        candidate_mask: bool `[B, C]`, True for a real candidate; for the
            statistics of Dice in training. `None` for all.
        training: Whether Dice has the statistics of the batch.

    Returns:
        float32 `[B, C]`, logits.

    Raises:
        ValueError: If a width is below 1, or there is none, or the activation
            is unknown.

    Numerics:
        The last layer computes in float32 under every policy.

    Cost:
        What is shared passes the first layer once a request, not once a
        candidate.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        activation: str = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        hidden_units = tuple(hidden_units)
        if not hidden_units or min(hidden_units) < 1:
            raise ValueError(
                "`hidden_units` must be at least one number, each at least 1. "
                f"Received: hidden_units={hidden_units}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(ACTIVATIONS)}. "
                f"Received: activation={activation!r}"
            )
        self.hidden_units = hidden_units
        self.activation = activation
        policy = self.dtype_policy
        self.hidden = [
            keras.layers.Dense(units, name=f"hidden_{place}", dtype=policy)
            for place, units in enumerate(hidden_units)
        ]
        self.functions = [
            self._function(f"activation_{place}")
            for place in range(len(hidden_units))
        ]
        self.output_unit = keras.layers.Dense(
            1, name="output_unit", dtype="float32"
        )

    def _function(self, name: str) -> keras.layers.Layer:
        if self.activation == "dice":
            return Dice(name=name, dtype=self.dtype_policy)
        return keras.layers.Activation(
            self.activation, name=name, dtype=self.dtype_policy
        )

    def build(self, rows_shape: Any, shared_shape: Any = None) -> None:
        width = rows_shape[-1] + (shared_shape[-1] if shared_shape else 0)
        for dense, function in zip(self.hidden, self.functions, strict=True):
            dense.build((None, None, width))
            width = dense.units
            function.build((None, None, width))
        self.output_unit.build((None, None, width))
        self.built = True

    def call(
        self,
        rows: Tensor,
        shared: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        first = self.hidden[0]
        kernel = ops.cast(first.kernel, self.compute_dtype)
        width = rows.shape[-1]
        x = ops.matmul(rows, kernel[:width])  # [B, C, h]
        x = x + ops.cast(first.bias, self.compute_dtype)
        if shared is not None:
            x = x + ops.expand_dims(ops.matmul(shared, kernel[width:]), 1)
        for place, function in enumerate(self.functions):
            x = x if place == 0 else self.hidden[place](x)
            if isinstance(function, Dice):
                x = function(x, candidate_mask, training=training)
            else:
                x = function(x)
        return ops.squeeze(self.output_unit(x), axis=-1)

    def compute_output_shape(
        self, rows_shape: Any, shared_shape: Any = None
    ) -> Any:
        return rows_shape[:-1]

    def compute_output_spec(
        self,
        rows: Tensor,
        shared: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        training: bool = False,
    ) -> Any:
        return keras.KerasTensor(rows.shape[:-1], "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "activation": self.activation,
        }
