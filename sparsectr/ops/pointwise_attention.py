"""Attention whose weights are not normalized: SiLU in place of a softmax.

Axes: B batch, Q queries, S keys, H heads, d width, d_h = d / H.
"""

from keras import ops

from sparsectr.ops.split_heads import join_heads, split_heads
from sparsectr.ops.tensor import Tensor


def attend_pointwise(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor,
    mask: Tensor,
    num_heads: int,
) -> Tensor:
    """Sums of values, each by `silu(q . k / sqrt(d_h) + bias)`.

    Args:
        query: float `[B, Q, d]`, the heads side by side.
        keys: float `[B, S, d]`.
        values: float `[B, S, d]`.
        bias: float32, broadcasts to `[B, Q, H, S]`.
        mask: bool, broadcasts to `[B, Q, S]`; True = keep.
        num_heads: H.

    Returns:
        float32 `[B, Q, d]`, exactly 0 where a query may read nothing.

    Cost:
        O(Q S d) multiplications, O(Q S H) memory.
    """
    keys = ops.transpose(split_heads(keys, num_heads), (0, 1, 3, 2))
    logits = ops.matmul(split_heads(query, num_heads), keys)  # [B, H, Q, S]
    weights = _weights(logits, query, num_heads, ops.moveaxis(bias, 2, 1))
    weights = ops.where(ops.expand_dims(mask, 1), weights, 0.0)
    sums = ops.matmul(
        ops.cast(weights, values.dtype), split_heads(values, num_heads)
    )  # [B, H, Q, d_h]
    return ops.cast(join_heads(sums), "float32")


def attend_pointwise_to_self(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, num_heads: int
) -> Tensor:
    """What `attend_pointwise` adds for a key that is a query's own.

    Args:
        query: float `[B, Q, d]`.
        key: float `[B, Q, d]`, of each query.
        value: float `[B, Q, d]`.
        bias: float32, broadcasts to `[B, Q, H, 1]`.
        num_heads: H.

    Returns:
        float32 `[B, Q, d]`.
    """
    products = split_heads(query * key, num_heads)  # [B, H, Q, d_h]
    logits = ops.sum(ops.cast(products, "float32"), axis=-1, keepdims=True)
    weights = _weights(logits, query, num_heads, ops.moveaxis(bias, 2, 1))
    own = weights * ops.cast(split_heads(value, num_heads), "float32")
    return join_heads(own)


def _weights(
    logits: Tensor, query: Tensor, num_heads: int, bias: Tensor
) -> Tensor:
    scale = (query.shape[-1] // num_heads) ** -0.5
    return ops.silu(ops.cast(logits, "float32") * scale + bias)
