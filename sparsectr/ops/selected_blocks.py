"""Which blocks of a history a query reads, by what it found in coarser ones.

Positions count back from the request, the newest behavior 1; blocks are in
order, the last one ends with the newest row.

Axes: B batch, Q queries, L history length, P coarse blocks, n blocks.
"""

from typing import NamedTuple

from keras import ops

from sparsectr.ops.best_columns import best_columns
from sparsectr.ops.tensor import Tensor

_FORCED = 1e20
"""Above every importance, and above -1e30 when divided."""


class BlockSizes(NamedTuple):
    """How a history is cut, once coarsely and once for selection.

    Attributes:
        coarse_size: Rows of a coarse block.
        coarse_stride: From the first row of a coarse block to the next's.
        size: Rows of a block.
    """

    coarse_size: int
    coarse_stride: int
    size: int


def block_importance(
    probabilities: Tensor, num_blocks: Tensor | int, sizes: BlockSizes
) -> Tensor:
    """Hands the probabilities of coarse blocks to the blocks within.

    In shares of how many rows they have in common.

    Args:
        probabilities: float32 `[B, Q, P]`.
        num_blocks: n.
        sizes: Those of the blocks.

    Returns:
        float32 `[B, Q, n]`, without a gradient.
    """
    coarse = _rank(ops.shape(probabilities)[-1]) * sizes.coarse_stride
    fine = _rank(num_blocks) * sizes.size
    # Of positions from the newest row, the half-open ranges of both.
    coarse, fine = ops.expand_dims(coarse, 1), ops.expand_dims(fine, 0)
    end = ops.minimum(coarse + sizes.coarse_size, fine + sizes.size)
    common = ops.maximum(end - ops.maximum(coarse, fine), 0)  # [P, n]
    share = ops.cast(common, "float32") / sizes.coarse_stride
    return ops.matmul(ops.stop_gradient(probabilities), share)


def _rank(count: Tensor | int) -> Tensor:
    """Returns the numbers of blocks counted back from the newest, 0 first."""
    return count - 1 - ops.arange(count, dtype="int32")


def select_blocks(
    importance: Tensor,
    position: Tensor,
    num_valid: Tensor,
    size: int,
    num_selected: int,
    num_forced: int,
) -> tuple[Tensor, Tensor]:
    """Selects the most important blocks that begin at or before a query.

    Of equally important ones, the newer. Forced are, in this order, the
    query's own block, the one before and the history's first.

    Args:
        importance: float32 `[B, Q, n]`.
        position: int32 `[B, Q]`, of the queries; 0 for a candidate.
        num_valid: int32 `[B, 1]`, behaviors of each history.
        size: Rows of a block.
        num_selected: How many, the forced ones among them.
        num_forced: How many of the three are forced.

    Returns:
        int32 `[B, Q, k]`, indices of blocks, k at most `num_selected`; bool
        likewise, False where there was none left.
    """
    count = ops.shape(importance)[-1]
    block = ops.reshape(_rank(count), (1, 1, -1))
    own = ops.expand_dims(ops.maximum(position - 1, 0) // size, 2)
    num_valid = ops.expand_dims(num_valid, 2)
    first = (num_valid - 1) // size
    score = importance
    for rank, forced in reversed([*enumerate((own, own + 1, first))]):
        if rank < num_forced:
            score = ops.where(block == forced, _FORCED / 10**rank, score)
    is_there = ops.logical_and(block >= own, block * size < num_valid)
    return best_columns(score, is_there, num_selected)
