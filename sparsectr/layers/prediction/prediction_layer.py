"""The prediction layer.

Axes: B batch, C candidates, U user fields, d width.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class PredictionLayer(keras.layers.Layer):
    """Click logits from candidates' rows and the user (Eq. 17).

        MLP(relu(E_C W4) * sigmoid(flatten(e_U) W5))

    Args:
        width: d.
        hidden_units: Width of each hidden layer of the MLP, whose output is
            1.
        activation: That of the hidden layers; see `MLPHead`.

    Call arguments:
        candidates: float `[B, C, d]`, the last block's rows.
        user: float `[B, U * embedding_dim]`, the flattened e_U; `None` for a
            schema without user fields, which leaves the factor out.
        candidate_mask: bool `[B, C]`, True for a real candidate; see `MLPHead`.
        training: See `MLPHead`.

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

    def __init__(
        self,
        width: int,
        hidden_units: Sequence[int],
        activation: str = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if width < 1:
            raise ValueError(
                f"`width` must be at least 1. Received: width={width}"
            )
        self.width = width
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
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
        self.mlp = MLPHead(
            hidden_units, activation, name="mlp", dtype=self.dtype_policy
        )

    def build(self, candidates_shape: Any, user_shape: Any = None) -> None:
        self.candidate_projection.build(candidates_shape)
        if user_shape is not None:
            self.user_projection.build(user_shape)
        self.mlp.build((*candidates_shape[:-1], self.width))
        self.built = True

    def call(
        self,
        candidates: Tensor,
        user: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        fused = self.candidate_projection(candidates)  # [B, C, d]
        if user is not None:
            fused = fused * ops.expand_dims(self.user_projection(user), 1)
        logits: Tensor = self.mlp(
            fused, candidate_mask=candidate_mask, training=training
        )
        return logits

    def compute_output_shape(
        self, candidates_shape: Any, user_shape: Any = None
    ) -> Any:
        return candidates_shape[:-1]

    def compute_output_spec(
        self,
        candidates: Tensor,
        user: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        training: bool = False,
    ) -> Any:
        shape = self.compute_output_shape(candidates.shape)
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "hidden_units": self.hidden_units,
            "activation": self.activation,
        }
