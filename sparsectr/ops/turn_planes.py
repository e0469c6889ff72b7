"""Rotation of queries and keys, a few planes a head.

Axes: B batch, N rows, H heads, d width, d_h = d / H.
"""

from keras import ops

from sparsectr.ops.tensor import Tensor


def turn_planes(rows: Tensor, angle: Tensor, num_heads: int) -> Tensor:
    """Turns each plane of each head by its own angle.

    Plane i of a head is that of its columns i and i + d_h / 2.

    Args:
        rows: float `[B, N, d]`, the heads side by side.
        angle: float32, broadcasts with `[B, N, H, d_h / 2]`, radians.
        num_heads: H.

    Returns:
        float `[B, N, d]`; `[B, N', d]` for a single row and N' angles.

    Raises:
        ValueError: If heads have an odd width.

    Numerics:
        float32, then cast back.

    Cost:
        O(N d).
    """
    width = rows.shape[-1]
    if width % (2 * num_heads):
        raise ValueError(
            "`rows` must have heads of an even width. "
            f"Received: width={width}, num_heads={num_heads}"
        )
    size = ops.shape(rows)[1]
    columns = (-1, size, num_heads, 2, width // (2 * num_heads))
    pairs = ops.cast(ops.reshape(rows, columns), "float32")
    first, second = pairs[..., 0, :], pairs[..., 1, :]  # [B, N, H, d_h / 2]
    cosine, sine = ops.cos(angle), ops.sin(angle)
    turned = ops.stack(
        [first * cosine - second * sine, second * cosine + first * sine],
        axis=3,
    )  # [B, N, H, 2, d_h / 2]
    size = ops.shape(turned)[1]
    return ops.cast(ops.reshape(turned, (-1, size, width)), rows.dtype)
