"""Behaviours that read each other causally, in blocks of queries.

Axes: B batch, L history length.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from sparsectr.ops.places import Places
from sparsectr.ops.query_blocks import NUM_QUERY_BLOCKS, query_block_bounds
from sparsectr.ops.tensor import Tensor

Relate = Callable[[Places, Places], tuple[Tensor, ...]]
"""From places of queries and keys to what an encoding knows of them."""


class QueryBlock(NamedTuple):
    """Behaviours that ask together; they read keys up to the last of them.

    Attributes:
        start: Index of the first.
        end: One past the last; `None` for the end of the history.
        features: Of the encoding, `[B, end - start, end]` each.
        mask: bool `[B, end - start, end]`; True = keep.
    """

    start: int
    end: int | None
    features: tuple[Tensor, ...]
    mask: Tensor


def causal_blocks(
    history: Places, relate: Relate, num_query_blocks: int = NUM_QUERY_BLOCKS
) -> tuple[QueryBlock, ...]:
    """Cuts a history into blocks of queries, in order.

    Each reads the keys up to its end: of long histories, nearly half of all
    pairs are not computed, which the causal mask would throw away. Where L is
    not known before the pass, as in an exported graph, there is one block.

    Args:
        history: Places `[B, L]`.
        relate: What to know of queries and keys.
        num_query_blocks: How many blocks, at most.
    """
    length = history.time.shape[1]
    bounds: list[tuple[int, int | None]] = [(0, None)]
    if length is not None:
        bounds = [*query_block_bounds(length, num_query_blocks)]
    blocks = []
    for start, end in bounds:
        queries = Places(*(x[:, start:end] for x in history))
        keys = Places(*(x[:, :end] for x in history))
        # A position counts back, so that of a key at or before the query is
        # the larger one.
        causal = ops.expand_dims(keys.position, 1) >= ops.expand_dims(
            queries.position, 2
        )
        mask = ops.logical_and(ops.expand_dims(keys.valid, 1), causal)
        blocks.append(QueryBlock(start, end, relate(queries, keys), mask))
    return tuple(blocks)
