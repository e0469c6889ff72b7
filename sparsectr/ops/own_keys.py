"""Attention of queries that each have keys of their own.

Axes: B batch, C candidates, k keys of a candidate, H heads, d width,
d_h = d / H.
"""

from keras import ops

from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.masked_softmax import Numerators, masked_exponentials
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


def gather_own_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Returns `rows[b, index[b, c, j]]` for every `b`, `c` and `j`.

    Args:
        rows: Tensor `[B, L]` or `[B, L, d]`.
        index: int32 `[B, C, k]`, each in `[0, L)`.

    Returns:
        Tensor `[B, C, k]` or `[B, C, k, d]`.
    """
    sizes = ops.shape(index)
    flat = ops.reshape(index, (sizes[0], sizes[1] * sizes[2]))  # [B, C * k]
    found = gather_rows(rows, flat)
    return ops.reshape(found, (*sizes, *rows.shape[2:]))


def attend_own_keys(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    num_heads: int,
    trace: Trace | None = None,
    bias: Tensor | None = None,
    numerators: Numerators | None = None,
) -> Tensor:
    """Multi-head attention, scaled by the root of d_h.

    Args:
        query: float `[B, C, d]`, the heads side by side.
        keys: float `[B, C, k, d]`.
        values: float `[B, C, k, d]`.
        mask: bool `[B, C, k]`; True = keep.
        num_heads: H.
        trace: Gets `weights`, float32 `[B, C, H, k]`.
        bias: float32 added to the logits, broadcasts to `[B, C, H, k]`.
        numerators: Of a sink; without one, a softmax.

    Returns:
        float `[B, C, d]`, exactly 0 where a query may read nothing.

    Cost:
        O(C k d). Sums of products and no matrix products, which would be too
        small: a batch of C H of them, each of one row.
    """
    sizes = ops.shape(keys)
    width = query.shape[-1]
    by_head = (*sizes[:3], num_heads, width // num_heads)

    def split(rows: Tensor) -> Tensor:
        return ops.cast(ops.reshape(rows, by_head), "float32")

    logits = ops.sum(split(ops.expand_dims(query, 2) * keys), axis=-1)
    logits = ops.transpose(logits, (0, 1, 3, 2))  # [B, C, H, k]
    logits = logits * (width // num_heads) ** -0.5
    if bias is not None:
        logits = logits + bias
    mask = ops.expand_dims(mask, 2)
    if numerators is None:
        weights, total = masked_exponentials(logits, mask)
    else:
        weights, total = numerators(logits, mask, 2)
    weights = weights / total
    if trace is not None:
        trace.record("weights", weights)
    weights = ops.transpose(weights, (0, 1, 3, 2))  # [B, C, k, H]
    outputs = ops.sum(ops.expand_dims(weights, -1) * split(values), axis=2)
    return ops.reshape(
        ops.cast(outputs, values.dtype), (*sizes[:2], width)
    )  # [B, C, d]
