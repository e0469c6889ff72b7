"""SequenceProjection: a history as a few sums of its rows.

Axes: B batch, L history length, d width, k sums, M longest history.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class SequenceProjection(keras.layers.Layer):
    """Sums of rows, with a weight for each position (Wang et al., 2020).

        y_k = sum_p E[k, p] x_p

    p counts from the newest row, so that padding on the left moves none.

    Args:
        num_sums: k.
        longest_history: M; rows farther back are not read.

    Call arguments:
        rows: float `[B, L, d]`.
        mask: bool `[B, L]`; True = keep.

    Returns:
        float `[B, k, d]`.

    Raises:
        ValueError: If an argument is below 1.

    Masking:
        Masked rows count as 0.

    Cost:
        O(k min(L, M) d), and k M weights.
    """

    def __init__(
        self, num_sums: int, longest_history: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (
            ("num_sums", num_sums),
            ("longest_history", longest_history),
        ):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        self.num_sums = num_sums
        self.longest_history = longest_history

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        bound = self.num_sums**-0.5
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.longest_history, self.num_sums),
            initializer=keras.initializers.RandomUniform(-bound, bound),
        )
        self.built = True

    def call(self, rows: Tensor, mask: Tensor) -> Tensor:
        rows = ops.where(
            ops.expand_dims(mask, 2), rows, ops.zeros((), rows.dtype)
        )
        # Both end with the newest row.
        unread = self.longest_history - ops.shape(rows)[1]
        if isinstance(unread, int):
            unused, beyond = max(unread, 0), max(-unread, 0)
        else:
            unused, beyond = ops.maximum(unread, 0), ops.maximum(-unread, 0)
        weights = ops.transpose(self.kernel[unused:])  # [k, min(L, M)]
        return ops.matmul(weights, rows[:, beyond:])  # [B, k, d]

    def compute_output_shape(
        self, rows_shape: Any, mask_shape: Any = None
    ) -> tuple[int | None, ...]:
        batch, _, width = rows_shape
        return (batch, self.num_sums, width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_sums": self.num_sums,
            "longest_history": self.longest_history,
        }
