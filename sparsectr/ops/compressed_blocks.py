"""How many blocks a history is compressed to. No tensor is needed."""

import math


def num_compressed_blocks(length: int, size: int, stride: int) -> int:
    """Returns how many blocks cover a history.

    Args:
        length: L.
        size: Rows of a block.
        stride: From the first row of a block to that of the next.
    """
    return 1 + max(0, math.ceil((length - size) / stride))
