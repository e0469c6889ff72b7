"""Sinks between chunks, which carry the gap that was cut at.

Axes: B batch, L history length, P chunks, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.chunking.chunking import Chunks
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.time_field_ids import log_gap

NUM_ROWS = 33
"""One for the beginning, and one for each power of two of seconds."""


@keras.saving.register_keras_serializable(package="sparsectr")
class BoundarySinks(keras.layers.Layer):
    """One more row before every chunk: a learned one for the gap before it.

        row = Table[1 + floor(log2(max(gap, 1)))],  Table[0] for the first

    CTR-Sink (arXiv 2508.03668), which sets such tokens between the behaviours
    of a language model's prompt.

    Call arguments:
        gap: int32 `[B, P]`, rows of the table, from `stand`.

    Returns:
        float `[B, P, d]`, rows that W_K and W_V are for.

    Cost:
        33 d weights, and P keys more.

    Differs from the source:
        The signal is the gap in seconds, not a behaviour's rank. The rows are
        a block's own and read nothing, so that there is no bias between
        them; nor is there a stage of training that reads sinks alone.
    """

    def build(self, rows_shape: Any) -> None:
        self.rows = self.add_weight(
            name="rows",
            shape=(NUM_ROWS, rows_shape[-1]),
            # As large as the normalized rows that they stand among.
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.built = True

    def stand(self, history: Places, chunks: Chunks) -> tuple[Places, Tensor]:
        """Returns where the sinks stand, and rows of the table.

        Each stands at the first behaviour of its chunk, with its time.

        Args:
            history: Places of the behaviours, `[B, L]`.
            chunks: Where it is cut.

        Returns:
            Places `[B, P]`, not valid for empty chunks, and int32 `[B, P]`.
        """
        valid = chunks.end > chunks.start  # [B, P]
        index = ops.where(valid, chunks.start, 0)
        time = gather_rows(history.time, index)
        before = gather_rows(history.time, ops.maximum(index - 1, 0))
        has_before = chunks.start > ops.expand_dims(chunks.start[:, 0], 1)
        gap = ops.where(has_before, 1 + log_gap(before, time), 0)
        length = ops.shape(history.time)[1]
        place = Places(time, length - index, valid, ops.zeros_like(valid))
        return place, gap

    def call(self, gap: Tensor) -> Tensor:
        return ops.take(self.rows, gap, axis=0)

    def compute_output_shape(self, gap_shape: Any) -> Any:
        return (*gap_shape, self.rows.shape[-1])
