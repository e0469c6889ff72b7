"""SimilarityChunking: cuts where neighbours are least alike.

Axes: B batch, L history length, P chunks, d width.
"""

import math

import keras
from keras import ops

from sparsectr.layers.chunking.chunking import (
    Chunking,
    between_cuts,
    newest_of_highest,
)
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor

_LEAST_SQUARE = 1e-12
"""A row whose squares sum to less has no direction: its cosine is 0."""


@keras.saving.register_keras_serializable(package="sparsectr")
class SimilarityChunking(Chunking):
    """Cuts each history at the lowest similarities (the paper's Figure 2b).

        s_i = e_i . e_(i-1) / (|e_i| |e_(i-1)|)

    The cuts are the `num_chunks - 1` lowest s_i of neighbouring valid
    behaviours, e the rows before the first block. Of equal similarities the
    more recent wins. No gradient passes.

    Arguments, call arguments and returns are those of `Chunking`.

    Raises:
        ValueError: If an argument is below 1, or without rows.

    Numerics:
        float32. Ordered by `1 - s_i = |u_i - u_(i-1)|^2 / 2` of unit vectors
        u, which is exactly 0 for equal rows: their ties are ties. Of
        similarities that differ by rounding alone, either may be cut.

    Cost:
        O(L d) for similarities, O(L log P) for the cuts, O(L P) for the
        weights.

    Differs from the paper:
        Which rows are compared it does not say. A row of zeros, which has no
        direction, is like none.
    """

    def cut(
        self, history: Places, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns where chunks start and end, int32 `[B, P]` each."""
        if rows is None:
            raise ValueError("`rows` must be given. Received: rows=None")
        rows = ops.stop_gradient(ops.cast(rows, "float32"))
        square = ops.sum(ops.square(rows), axis=2, keepdims=True)
        has_direction = square >= _LEAST_SQUARE
        length = ops.sqrt(ops.maximum(square, _LEAST_SQUARE))
        unit = rows / length  # [B, L, d]
        step = ops.sum(ops.square(unit[:, 1:] - unit[:, :-1]), axis=2)
        both = ops.logical_and(has_direction[:, 1:], has_direction[:, :-1])
        unlike = ops.where(both[..., 0], step / 2.0, 1.0)  # [B, L - 1]
        unlike = ops.where(history.valid[:, :-1], unlike, -math.inf)
        cut = newest_of_highest(unlike, self.num_chunks - 1)
        return between_cuts(history, cut)
