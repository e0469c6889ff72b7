"""Into which blocks the queries of a history are cut. No tensor is needed."""

import math

# Into so many blocks queries are cut, each of which reads the keys up to its
# end: 17 of 32 pairs. More blocks would save little more and take longer to
# compile (benchmarks/LOG.md).
NUM_QUERY_BLOCKS = 16
_LEAST_BLOCK = 64


def query_block_bounds(
    length: int, num_query_blocks: int = NUM_QUERY_BLOCKS
) -> list[tuple[int, int]]:
    """Returns start and end of every block of queries, in order.

    Args:
        length: L.
        num_query_blocks: How many, at most.
    """
    size = max(_LEAST_BLOCK, math.ceil(length / num_query_blocks))
    starts = range(0, max(length, 1), size)
    return [(start, min(start + size, length)) for start in starts]
