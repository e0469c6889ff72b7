"""Rows of a batch of sequences by their index."""

from keras import ops

from sparsectr.ops.tensor import Tensor


def gather_rows(sequence: Tensor, index: Tensor) -> Tensor:
    """Returns `sequence[b, index[b, k]]` for every `b` and `k`.

    One flat gather: `keras.ops.take_along_axis` would broadcast the index
    over the width first.

    Args:
        sequence: Tensor `[B, L]` or `[B, L, d]`.
        index: int32 `[B, K]`, each in `[0, L)`.

    Returns:
        Tensor `[B, K]` or `[B, K, d]`.
    """
    shape = ops.shape(sequence)
    batch, length = shape[0], shape[1]
    flat = ops.reshape(sequence, (-1, *shape[2:]))  # [B * L, ...]
    first = ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)
    return ops.take(flat, index + first, axis=0)
