"""Attention whose own scores say what is retrieved, head by head.

Axes: B batch, L history length, C candidates, k retrieved, H heads, d width,
d_h = d / H, w width of a behavior.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.retrieval.target_attention import projection
from sparsectr.ops.best_columns import best_columns
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


@keras.saving.register_keras_serializable(package="sparsectr")
class ConsistentAttention(keras.layers.Layer):
    """Target attention to the k behaviors that it scores highest.

        alpha_ih = k_ih . (q W_q,h) / sqrt(d_h) + b_ih
        v_h = sum over the k best i of softmax_i(alpha_ih) x_i W_v,h
        v = [v_1, ..., v_H] W_o

    Each head finds its own. Of equal scores the newest win.

    Args:
        num_heads: H, a divisor of d.
        num_retrieved: k.

    Call arguments:
        candidates: float `[B, C, d]`, q.
        keys: float `[B, L, d]`, the heads side by side.
        bias: float `[B, H, L]`, b.
        rows: float `[B, L, w]`, x.
        mask: bool `[B, L]`; True = may be found.
        trace: Gets `retrieved`, int32 `[B, H, C, k]`, -1 for none, and
            `weights` likewise, float32.

    Returns:
        float `[B, C, d]`, exactly 0 where there is nothing to find.

    Raises:
        ValueError: If the heads do not divide the width.

    Numerics:
        Scores in float32, those of the search by one matrix product, those
        that have a gradient again from what is found.

    Cost:
        O(C L d + L w d + C k d) multiplications, O(C L H) memory. A training
        step over L=1024, d=32, H=8, k=50, C=4 (B=64, two cores, XLA) takes
        60 ms with what each head gathers, and 96 ms with all scores under a
        mask; with 16 candidates 134 ms and 221 ms.
    """

    def __init__(
        self, num_heads: int, num_retrieved: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_retrieved = num_retrieved

    def build(
        self,
        candidates_shape: Any,
        keys_shape: Any = None,
        bias_shape: Any = None,
        rows_shape: Any = None,
        mask_shape: Any = None,
    ) -> None:
        width, policy = candidates_shape[-1], self.dtype_policy
        if self.num_heads < 1 or width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width, {width}. Received: "
                f"num_heads={self.num_heads}"
            )
        self.query = projection("query", width, width, policy)
        self.value = projection("value", rows_shape[-1], width, policy)
        self.output_projection = projection("output", width, width, policy)
        self.built = True

    def call(
        self,
        candidates: Tensor,
        keys: Tensor,
        bias: Tensor,
        rows: Tensor,
        mask: Tensor,
        trace: Trace | None = None,
    ) -> Tensor:
        scale = (candidates.shape[-1] // self.num_heads) ** -0.5
        query = self._by_head(self.query(candidates))  # [B, H, C, d_h]
        keys = self._split(keys)  # [B, L, H, d_h]
        scores = ops.matmul(
            ops.stop_gradient(query),
            ops.stop_gradient(ops.transpose(keys, (0, 2, 3, 1))),
        )  # [B, H, C, L]
        bias = ops.cast(bias, "float32")
        index, found = best_columns(
            ops.cast(scores, "float32") * scale + ops.expand_dims(bias, 2),
            ops.expand_dims(mask, (1, 2)),
            self.num_retrieved,
        )  # [B, H, C, k]
        values = self._split(self.value(rows))
        keys, values, bias = self._gathered(keys, values, bias, index)
        logits = ops.sum(
            ops.cast(ops.expand_dims(query, 3) * keys, "float32"), axis=-1
        )
        weights, total = masked_exponentials(logits * scale + bias, found)
        weights = weights / total  # [B, H, C, k]
        if trace is not None:
            trace.record("retrieved", ops.where(found, index, -1))
            trace.record("weights", weights)
        sums = ops.sum(ops.expand_dims(weights, -1) * values, axis=3)
        sums = ops.cast(ops.transpose(sums, (0, 2, 1, 3)), self.compute_dtype)
        return self.output_projection(
            ops.reshape(sums, ops.shape(candidates))
        )  # [B, C, d]

    def _split(self, rows: Tensor) -> Tensor:
        """Returns `[B, rows, H, d_h]`."""
        sizes = ops.shape(rows)
        head_width = rows.shape[-1] // self.num_heads
        return ops.reshape(rows, (*sizes[:2], self.num_heads, head_width))

    def _by_head(self, rows: Tensor) -> Tensor:
        return ops.transpose(self._split(rows), (0, 2, 1, 3))

    def _gathered(
        self, keys: Tensor, values: Tensor, bias: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what each head found.

        Args:
            keys: float `[B, L, H, d_h]`.
            values: Likewise.
            bias: float32 `[B, H, L]`.
            index: int32 `[B, H, C, k]`.

        Returns:
            Keys `[B, H, C, k, d_h]`, values likewise in float32, and biases
            `[B, H, C, k]`.
        """
        sizes = ops.shape(index)
        num_heads, head_width = keys.shape[2:]
        bias = ops.expand_dims(ops.transpose(bias, (0, 2, 1)), -1)
        rows = ops.concatenate(
            [ops.cast(keys, "float32"), ops.cast(values, "float32"), bias], -1
        )  # [B, L, H, 2 d_h + 1]
        batch, length = ops.shape(keys)[:2]
        rows = ops.reshape(
            rows, (batch, length * num_heads, 2 * head_width + 1)
        )
        head = ops.reshape(ops.arange(num_heads, dtype="int32"), (-1, 1, 1))
        flat = index * num_heads + head
        flat = ops.reshape(flat, (batch, num_heads * sizes[2] * sizes[3]))
        found = ops.reshape(
            gather_rows(rows, flat), (*sizes, 2 * head_width + 1)
        )
        found_keys, found_values, found_bias = ops.split(
            found, [head_width, 2 * head_width], axis=-1
        )
        return (
            ops.cast(found_keys, keys.dtype),
            found_values,
            ops.squeeze(found_bias, -1),
        )

    def compute_output_shape(
        self,
        candidates_shape: Any,
        keys_shape: Any = None,
        bias_shape: Any = None,
        rows_shape: Any = None,
        mask_shape: Any = None,
    ) -> Any:
        return candidates_shape

    def compute_output_spec(
        self,
        candidates: Tensor,
        keys: Tensor,
        bias: Tensor,
        rows: Tensor,
        mask: Tensor,
        trace: Trace | None = None,
    ) -> Any:
        return keras.KerasTensor(candidates.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_retrieved": self.num_retrieved,
        }
