"""BlockCompression: one row for each block of a history.

Axes: B batch, L history length, d width, P blocks, l rows of a block.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import newest_rows
from sparsectr.ops.tensor import Tensor


def overlapping_blocks(
    sequence: Tensor, num_blocks: int, size: int, stride: int
) -> Tensor:
    """Cuts the newest rows into blocks that begin every `stride` rows.

    Args:
        sequence: Tensor `[B, L, ...]`.
        num_blocks: P; the last one ends with the newest row.
        size: l.
        stride: From the first row of a block to that of the next.

    Returns:
        Tensor `[B, P, l, ...]`; what is missing is 0.
    """
    reach = newest_rows(sequence, (num_blocks - 1) * stride + size)
    rest = sequence.shape[2:]
    if size == stride:
        return ops.reshape(reach, (-1, num_blocks, size, *rest))
    index = ops.expand_dims(ops.arange(num_blocks) * stride, 1)
    index = ops.reshape(index + ops.arange(size), (-1,))
    return ops.reshape(
        ops.take(reach, index, axis=1), (-1, num_blocks, size, *rest)
    )


def places_of_blocks(
    history: Places, num_blocks: int, size: int, stride: int
) -> Places:
    """Returns places `[B, P]`: mean time, and position of the newest row.

    Args:
        history: Places `[B, L]`.
        num_blocks: P; the last one ends with the newest row.
        size: l.
        stride: From the first row of a block to that of the next.
    """
    time = overlapping_blocks(history.time, num_blocks, size, stride)
    valid = overlapping_blocks(history.valid, num_blocks, size, stride)
    total = ops.sum(time, axis=2)  # of padding 0
    count = ops.sum(ops.cast(valid, total.dtype), axis=2)
    divisor = ops.maximum(count, 1)
    mean = total // divisor
    newest = 1 + stride * ops.arange(num_blocks - 1, -1, -1, dtype="int32")
    return Places(
        mean,
        newest + ops.zeros_like(mean, dtype="int32"),
        count > 0,
        total > mean * divisor,
    )


@keras.saving.register_keras_serializable(package="sparsectr")
class BlockCompression(keras.layers.Layer):
    """An MLP with a place for each row of a block, and a mean between.

        y_b = mean_j(relu(x_(b, j) W_1 + e_j)) W_2

    The mean is over the valid rows of a block.

    Args:
        num_blocks: P.
        block_size: l.
        block_stride: From the first row of a block to that of the next.

    Call arguments:
        rows: float `[B, L, d]`; the last block ends with the newest.
        mask: bool `[B, L]`; True = keep.

    Returns:
        float `[B, P, d]`, 0 for a block without a valid row.

    Cost:
        O(L d^2).

    Differs from the paper:
        NSA's MLP reads the rows of a block side by side, of which it would
        have l d / H inputs a head. A mean takes blocks that are not full.
    """

    def __init__(
        self, num_blocks: int, block_size: int, block_stride: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.block_stride = block_stride

    def build(self, rows_shape: Any, *unused: Any, **unnamed: Any) -> None:
        width = rows_shape[-1]
        self.hidden, self.output_projection = (
            keras.layers.Dense(
                width, use_bias=False, name=name, dtype=self.dtype_policy
            )
            for name in ("hidden", "output")
        )
        self.hidden.build((None, None, width))
        self.output_projection.build((None, None, width))
        self.row_positions = self.add_weight(
            name="row_positions",
            shape=(self.block_size, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.built = True

    def call(self, rows: Tensor, mask: Tensor) -> Tensor:
        sizes = (self.num_blocks, self.block_size, self.block_stride)
        reach = (self.num_blocks - 1) * self.block_stride + self.block_size
        hidden = self.hidden(newest_rows(rows, reach))
        hidden = overlapping_blocks(hidden, *sizes)  # [B, P, l, d]
        hidden = ops.relu(hidden + self.row_positions)
        is_valid = ops.cast(
            ops.expand_dims(overlapping_blocks(mask, *sizes), -1), hidden.dtype
        )
        count = ops.maximum(ops.sum(is_valid, axis=2), 1)  # [B, P, 1]
        mean = ops.sum(hidden * is_valid, axis=2) / count
        return self.output_projection(mean)

    def compute_output_shape(
        self, rows_shape: Any, mask_shape: Any = None
    ) -> tuple[int | None, ...]:
        batch, _, width = rows_shape
        return (batch, self.num_blocks, width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "block_size": self.block_size,
            "block_stride": self.block_stride,
        }
