"""Columns of heads that lie side by side, apart and together again.

Axes: B batch, N rows, H heads, d width, d_h = d / H.
"""

from keras import ops

from sparsectr.ops.tensor import Tensor


def split_heads(rows: Tensor, num_heads: int) -> Tensor:
    """Returns rows `[B, N, d]` as `[B, H, N, d_h]`."""
    count, width = ops.shape(rows)[1], rows.shape[-1]
    rows = ops.reshape(rows, (-1, count, num_heads, width // num_heads))
    return ops.transpose(rows, (0, 2, 1, 3))  # [B, H, N, d_h]


def join_heads(rows: Tensor) -> Tensor:
    """Returns rows `[B, H, N, d_h]` as `[B, N, d]`."""
    _, num_heads, count, head_width = ops.shape(rows)
    rows = ops.transpose(rows, (0, 2, 1, 3))  # [B, N, H, d_h]
    return ops.reshape(rows, (-1, count, num_heads * head_width))
