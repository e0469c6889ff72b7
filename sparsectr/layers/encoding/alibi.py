"""ALiBi: logits fall with distance, at a rate of each head's own.

Axes: B batch, Q queries, S keys, H heads.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.ops.places import Places, rows_between
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class ALiBi(Encoding):
    """Attention with linear biases (Press et al., ICLR 2022).

        bias = -2^(-8 h / H) * p,  h = 1, ..., H

    p is how many rows the key stands before the query, 0 for itself. Nothing
    is learned.

    Args:
        num_heads: H.

    Call arguments:
        distance: float32 `[B, Q, S]` or `[1, Q, S]`, p.

    Returns:
        float32 `[B, Q, H, S]`, or `[1, Q, H, S]`.

    Raises:
        ValueError: If `num_heads` is below 1.

    Numerics:
        float32 under every policy, in which distances are exact.

    Cost:
        O(Q S H).

    Differs from the paper:
        Its code adds a ramp of the keys alone, which a softmax cannot tell
        from distances. Beside a key that stands nowhere, such as the user's,
        it can: here the distances are true ones. A chunk stands where its
        newest member does.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Returns the distances, float32 `[B, Q, S + num_unplaced]`.

        Where positions are the same for all requests, so are the distances:
        `[1, Q, ...]`.
        """
        distance = ops.cast(rows_between(queries, keys), "float32")
        # Of a distance of 0, the bias is 0.
        return (ops.pad(distance, [(0, 0), (0, 0), (0, num_unplaced)]),)

    def bias(self, features: Features) -> Tensor:
        """Returns the biases, float32 `[B, Q, H, S]`."""
        return self(*features)

    def call(self, distance: Tensor) -> Tensor:
        slopes = [
            -(2.0 ** (-8.0 * head / self.num_heads))
            for head in range(1, self.num_heads + 1)
        ]
        column = ops.reshape(ops.convert_to_tensor(slopes, "float32"), (-1, 1))
        return ops.expand_dims(distance, 2) * column  # [B, Q, H, S]

    def compute_output_shape(
        self, distance_shape: Any
    ) -> tuple[int | None, ...]:
        batch, queries, keys = distance_shape
        return (batch, queries, self.num_heads, keys)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
