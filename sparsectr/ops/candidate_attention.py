"""Attention of candidates to a history, and each to itself.

Axes: B batch, C candidates, L history length, H heads, d width, d_h = d / H.
"""

from keras import ops

from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.split_heads import join_heads, split_heads
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


def attend_history_and_self(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    mask: Tensor,
    num_heads: int,
    bias: Tensor | None = None,
    own_bias: Tensor | None = None,
    trace: Trace | None = None,
) -> Tensor:
    """Softmax attention with one more key, which is a candidate's own.

    A candidate that stands last in a sequence reads itself too, but no other
    candidate: beside the logits of the history there is one on the diagonal.

    Args:
        query: float `[B, C, d]`, the heads side by side.
        keys: float `[B, L, d]`, of the history.
        values: float `[B, L, d]`.
        own_key: float `[B, C, d]`, of each candidate.
        own_value: float `[B, C, d]`.
        mask: bool, `[B, L]` or broadcasts to `[B, C, L]`; True = keep.
        num_heads: H.
        bias: float32 added to the logits, broadcasts to `[B, C, H, L]`, or
            `None`.
        own_bias: float32, broadcasts to `[B, C, H, 1]`, or `None`.
        trace: Gets `weights`, float32 `[B, C, H, L + 1]`, its own last.

    Returns:
        float `[B, C, d]`.

    Cost:
        O(C L d) multiplications, O(C L H) memory.
    """
    scale = (query.shape[-1] // num_heads) ** -0.5
    key_columns = ops.transpose(split_heads(keys, num_heads), (0, 1, 3, 2))
    logits = ops.matmul(split_heads(query, num_heads), key_columns)
    products = ops.cast(split_heads(query * own_key, num_heads), "float32")
    own_logits = ops.sum(products, axis=-1, keepdims=True)  # [B, H, C, 1]
    logits = ops.cast(logits, "float32") * scale  # [B, H, C, L]
    own_logits = own_logits * scale
    if bias is not None:
        logits = logits + ops.moveaxis(bias, 2, 1)
    if own_bias is not None:
        own_logits = own_logits + ops.moveaxis(own_bias, 2, 1)

    # The last key, a candidate's own, is always there.
    if len(mask.shape) == 2:
        mask = ops.expand_dims(mask, 1)
    mask = ops.pad(mask, [(0, 0), (0, 0), (0, 1)], constant_values=True)
    weights, total = masked_exponentials(
        ops.concatenate([logits, own_logits], axis=-1),
        ops.expand_dims(mask, 1),
    )  # [B, H, C, L + 1]
    if trace is not None:
        trace.record("weights", ops.transpose(weights / total, (0, 2, 1, 3)))
    length = ops.shape(weights)[-1] - 1
    sums = ops.matmul(
        ops.cast(slice_axis(weights, 0, length, axis=3), values.dtype),
        split_heads(values, num_heads),
    )
    own = slice_axis(weights, length, axis=3) * ops.cast(
        split_heads(own_value, num_heads), "float32"
    )
    attended = (ops.cast(sums, "float32") + own) / total
    return join_heads(ops.cast(attended, values.dtype))
