"""The prediction layer.

Axes: B batch, C candidates, U user fields, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class PredictionLayer(keras.layers.Layer):
    """Click logits from candidates' rows and the user (Eq. 17).

        MLP(relu(E_C W4) * sigmoid(flatten(e_U) W5))

    Args:
        width: d.
        hidden_units: Hidden units of the MLP, whose output is 1.

    Call arguments:
        candidates: float `[B, C, d]`, the last block's rows.
        user: float `[B, U * embedding_dim]`, the flattened e_U; `None` for a
            schema without user fields, which leaves the factor out.

    Returns:
        float32 `[B, C]`, logits: the sigmoid is in the loss and in the
        exported signature.

    Raises:
        ValueError: If an argument is below 1.

    Numerics:
        The last layer computes in float32 under every policy.

    Differs from the paper:
        Its `W5` of `[|U|, d]` does not fit `e_U`, which is flattened here.
    """

    def __init__(self, width: int, hidden_units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("width", width), ("hidden_units", hidden_units)):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        self.width = width
        self.hidden_units = hidden_units
        self.candidate_projection = keras.layers.Dense(
            width,
            activation="relu",
            use_bias=False,
            name="candidate_projection",
            dtype=self.dtype_policy,
        )
        self.user_projection = keras.layers.Dense(
            width,
            activation="sigmoid",
            use_bias=False,
            name="user_projection",
            dtype=self.dtype_policy,
        )
        self.hidden = keras.layers.Dense(
            hidden_units,
            activation="relu",
            name="hidden",
            dtype=self.dtype_policy,
        )
        self.output_unit = keras.layers.Dense(
            1, name="output_unit", dtype="float32"
        )

    def build(self, candidates_shape: Any, user_shape: Any = None) -> None:
        self.candidate_projection.build(candidates_shape)
        if user_shape is not None:
            self.user_projection.build(user_shape)
        self.hidden.build((*candidates_shape[:-1], self.width))
        self.output_unit.build((*candidates_shape[:-1], self.hidden_units))
        self.built = True

    def call(self, candidates: Tensor, user: Tensor | None = None) -> Tensor:
        fused = self.candidate_projection(candidates)  # [B, C, d]
        if user is not None:
            fused = fused * ops.expand_dims(self.user_projection(user), 1)
        logits = self.output_unit(self.hidden(fused))  # [B, C, 1]
        return ops.squeeze(logits, axis=-1)

    def compute_output_shape(
        self, candidates_shape: Any, user_shape: Any = None
    ) -> Any:
        return candidates_shape[:-1]

    def compute_output_spec(
        self, candidates: Tensor, user: Tensor | None = None
    ) -> Any:
        shape = self.compute_output_shape(candidates.shape)
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "hidden_units": self.hidden_units,
        }
