"""Multi-head attention of many queries to few keys, and to many.

Axes: B batch, Q queries, S keys, H heads, d width, d_h = d / H.
"""

from keras import ops

from sparsectr.ops.masked_softmax import Numerators
from sparsectr.ops.split_heads import join_heads, split_heads
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace

_MANY_KEYS = 128
"""From here on a training step is faster head by head (benchmarks/LOG.md)."""


def head_indicator(width: int, num_heads: int, dtype: str) -> Tensor:
    """Which column belongs to which head.

    Returns:
        Tensor `[d, H]`, 1 where column `d` is one of head `h`.
    """
    head = ops.arange(width) // (width // num_heads)
    return ops.cast(
        ops.expand_dims(head, 1) == ops.expand_dims(ops.arange(num_heads), 0),
        dtype,
    )


def _spread_heads(rows: Tensor, num_heads: int) -> Tensor:
    """Copies rows once a head, zero outside that head's columns.

    Args:
        rows: `[B, S, d]`.
        num_heads: H.

    Returns:
        `[B, H * S, d]`.
    """
    width = rows.shape[-1]
    indicator = head_indicator(width, num_heads, rows.dtype)  # [d, H]
    own = ops.reshape(ops.transpose(indicator), (1, num_heads, 1, width))
    spread = ops.expand_dims(rows, 1) * own  # [B, H, S, d]
    return ops.reshape(
        spread, (-1, num_heads * ops.shape(rows)[1], width)
    )  # [B, H * S, d]


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    mask: Tensor,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
    most_keys: int | None = None,
) -> Tensor:
    """Eq. 16, in the form that is faster for this number of keys.

    Args:
        query: float `[B, Q, d]`, the heads side by side.
        keys: float `[B, S, d]`.
        values: float `[B, S, d]`.
        bias: float32 added to the logits, broadcasts to `[B, Q, H, S]`, or
            `None`.
        mask: bool, broadcasts to `[B, Q, S]`; True = keep.
        num_heads: H.
        numerators: Of the sink: turns logits into weights.
        trace: Gets `weights`, float32 `[B, Q, H, S]`, and `logits` likewise,
            any number for a masked key.
        most_keys: How many there can be, and there is one then; it decides
            where S is not known before the pass, which else counts as many.

    Returns:
        float `[B, Q, d]`, exactly 0 where a query may read nothing.

    Cost:
        That of the form.
    """
    num_keys = most_keys if keys.shape[1] is None else keys.shape[1]
    # Of no keys, those of all heads cannot be laid out side by side.
    is_few = num_keys is not None and 0 < num_keys < _MANY_KEYS
    form = attend_block_diagonal if is_few else attend_by_head
    return form(query, keys, values, bias, mask, num_heads, numerators, trace)


def attend_block_diagonal(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    mask: Tensor,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
) -> Tensor:
    """Eq. 16 for queries that all read the same few keys.

    The keys of all heads are laid out block-diagonally, so that scores and
    values are one dense product of width d each. Heads of width 4 would
    otherwise be a batch of products too narrow for any matrix unit. Args and
    returns are those of `attend`.

    Cost:
        O(Q S H d) multiplications, O(Q S H) memory.
    """
    width = query.shape[-1]
    scale = (width // num_heads) ** -0.5
    wide_keys = _spread_heads(keys, num_heads)  # [B, H * S, d]
    logits = ops.matmul(query, ops.transpose(wide_keys, (0, 2, 1)))
    num_queries, num_keys = ops.shape(query)[1], ops.shape(keys)[1]
    logits = ops.reshape(
        logits, (-1, num_queries, num_heads, num_keys)
    )  # [B, Q, H, S]
    logits = ops.cast(logits, "float32") * scale
    if bias is not None:
        logits = logits + bias
    weights, total = numerators(logits, ops.expand_dims(mask, 2), 2)
    if trace is not None:
        trace.record("weights", weights / total)
        trace.record("logits", logits)
    weights = ops.reshape(
        ops.cast(weights, values.dtype),
        (-1, num_queries, num_heads * num_keys),
    )  # [B, Q, H * S]
    sums = ops.matmul(weights, _spread_heads(values, num_heads))  # [B, Q, d]
    by_head = (-1, num_queries, num_heads, width // num_heads)
    outputs = ops.reshape(ops.cast(sums, "float32"), by_head) / total
    return ops.reshape(ops.cast(outputs, values.dtype), ops.shape(sums))


def attend_by_head(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    mask: Tensor,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
) -> Tensor:
    """Eq. 16 head by head, for queries that read many keys.

    Args and returns are those of `attend`. With many keys the block-diagonal
    form would do H times the work for nothing.

    Cost:
        O(Q S d) multiplications, O(Q S H) memory.
    """
    head_width = query.shape[-1] // num_heads
    keys = ops.transpose(
        split_heads(keys, num_heads), (0, 1, 3, 2)
    )  # [B, H, d_h, S]
    logits = ops.matmul(split_heads(query, num_heads), keys)  # [B, H, Q, S]
    logits = ops.cast(logits, "float32") * head_width**-0.5
    if bias is not None:
        logits = logits + ops.transpose(bias, (0, 2, 1, 3))
    weights, total = numerators(logits, ops.expand_dims(mask, 1), 1)
    if trace is not None:
        trace.record("weights", ops.transpose(weights / total, (0, 2, 1, 3)))
        trace.record("logits", ops.transpose(logits, (0, 2, 1, 3)))
    sums = ops.matmul(
        ops.cast(weights, values.dtype), split_heads(values, num_heads)
    )
    outputs = ops.cast(ops.cast(sums, "float32") / total, values.dtype)
    return join_heads(outputs)
