"""Attention to the rows of selected blocks, gathered or by a mask.

Axes: B batch, Q queries, L history length, H heads, d width, n blocks, k
selected ones of a query.
"""

from typing import NamedTuple

from keras import ops

from sparsectr.ops.head_attention import attend_by_head
from sparsectr.ops.masked_softmax import Numerators
from sparsectr.ops.own_keys import attend_own_keys, gather_own_rows
from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import row_blocks
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


class Asked(NamedTuple):
    """Queries, the behaviors they may read, and the blocks they selected.

    Attributes:
        query: float `[B, Q, d]`.
        position: int32 `[B, Q]`, of the queries.
        keys: float `[B, L, d]`.
        values: float `[B, L, d]`.
        places: Places `[B, L]`; times are not read.
        index: int32 `[B, Q, k]`, of blocks as `row_blocks` makes them.
        found: bool `[B, Q, k]`, which of them there are.
        size: Rows of a block.
    """

    query: Tensor
    position: Tensor
    keys: Tensor
    values: Tensor
    places: Places
    index: Tensor
    found: Tensor
    size: int

    def rows(self, sequence: Tensor) -> Tensor:
        """Gathers the selected rows, `[B, L, ...]` to `[B, Q, k size, ...]`."""
        blocks = row_blocks(sequence, self.size)
        found = gather_own_rows(blocks, self.index)  # [B, Q, k, size, ...]
        batch, queries, count = ops.shape(self.index)
        rest = sequence.shape[2:]
        return ops.reshape(found, (batch, queries, count * self.size, *rest))


def attend_gathered(
    asked: Asked,
    bias: Tensor | None,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
) -> Tensor:
    """Attention of each query to the rows of its blocks at or before it.

    Args:
        asked: The queries.
        bias: float32, broadcasts to `[B, Q, H, k size]`, or `None`.
        num_heads: H.
        numerators: Of the sink: turns logits into weights.
        trace: Gets `weights`, float32 `[B, Q, H, k size]`.

    Returns:
        float `[B, Q, d]`, exactly 0 where a query may read nothing.

    Cost:
        O(Q k size d), multiplications and memory.
    """
    mask = ops.logical_and(
        asked.rows(asked.places.valid),
        ops.repeat(asked.found, asked.size, axis=2),
    )
    is_past = asked.rows(asked.places.position) >= ops.expand_dims(
        asked.position, 2
    )
    return attend_own_keys(
        asked.query,
        asked.rows(asked.keys),
        asked.rows(asked.values),
        ops.logical_and(mask, is_past),
        num_heads,
        trace,
        bias,
        numerators,
    )


def attend_masked(
    asked: Asked,
    bias: Tensor | None,
    num_heads: int,
    numerators: Numerators,
    trace: Trace | None = None,
) -> Tensor:
    """The same by a mask of all pairs, for many selected rows.

    Args and returns are those of `attend_gathered`, with L for k size.

    Cost:
        O(Q L d) multiplications, O(Q L H) memory.
    """
    places, size = asked.places, asked.size
    count = ops.shape(row_blocks(places.valid, size))[1]
    is_selected = ops.any(
        ops.logical_and(
            ops.expand_dims(asked.index, 3) == ops.arange(count, dtype="int32"),
            ops.expand_dims(asked.found, 3),
        ),
        axis=2,
    )  # [B, Q, n]
    is_selected = ops.repeat(is_selected, size, axis=2)
    missing = count * size - ops.shape(places.valid)[1]
    is_past = ops.expand_dims(places.position, 1) >= ops.expand_dims(
        asked.position, 2
    )
    mask = ops.logical_and(is_past, ops.expand_dims(places.valid, 1))
    return attend_by_head(
        asked.query,
        asked.keys,
        asked.values,
        bias,
        ops.logical_and(mask, is_selected[:, :, missing:]),
        num_heads,
        numerators,
        trace,
    )
