"""FixedChunking: chunks of one size, counted from the newest behaviour.

Axes: B batch, L history length, P chunks.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.chunking.chunking import Chunking, between_cuts
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class FixedChunking(Chunking):
    """Cuts each history every few behaviours (the paper's Figure 2b).

        chunk of a behaviour = floor(behaviours after it / chunk_size)

    counted from the newest end, so that padding moves no cut. A short history
    has fewer chunks; of one that is longer than P chunks, the oldest chunk
    takes the rest. Neither times nor rows are read.

    Args:
        num_chunks: See `Chunking`.
        num_transition: See `Chunking`.
        chunk_size: Behaviours of a chunk; `None` for those of each history
            alone, `ceil(valid behaviours / P)`.

    Call arguments and returns are those of `Chunking`.

    Raises:
        ValueError: If an argument is below 1.

    Numerics:
        Integers throughout.

    Cost:
        O(P) for the cuts, O(L P) for the weights.
    """

    def __init__(
        self,
        num_chunks: int,
        num_transition: int = 1,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_chunks, num_transition, **kwargs)
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(
                "`chunk_size` must be at least 1. "
                f"Received: chunk_size={chunk_size}"
            )
        self.chunk_size = chunk_size

    def cut(
        self, history: Places, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns where chunks start and end, int32 `[B, P]` each."""
        del rows
        valid = ops.cast(history.valid, "int32")
        num_valid = ops.sum(valid, axis=1, keepdims=True)  # [B, 1]
        size = self.chunk_size
        if size is None:
            size = (num_valid + self.num_chunks - 1) // self.num_chunks
        length = ops.shape(history.time)[1]
        after = size * ops.arange(1, self.num_chunks, dtype="int32")
        # A cut before the first behaviour would leave an empty chunk in front.
        cut = ops.where(after < num_valid, length - after, length)
        return between_cuts(history, cut)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "chunk_size": self.chunk_size}
