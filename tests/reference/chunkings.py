"""Chunkings beside TimeChunking, for one history.

Chunks are half-open ranges (start, end) of positions, oldest first; empty
ones are left out.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from configs.models.sparse_ctr import SparseCTRRecipe
from tests.reference.times import time_chunks

Chunks = list[tuple[int, int]]


def fixed_chunks(
    times: Sequence[int], num_chunks: int, chunk_size: int
) -> Chunks:
    """Chunk number `floor(distance / size)` from the newest, at most P - 1."""
    members: dict[int, list[int]] = {}
    for position, time in enumerate(times):
        if time != 0:
            distance = len(times) - 1 - position
            number = min(distance // chunk_size, num_chunks - 1)
            members.setdefault(number, []).append(position)
    oldest_first = sorted(members, reverse=True)
    return [(members[n][0], members[n][-1] + 1) for n in oldest_first]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Cosine of two vectors, 0 if one has no direction."""
    lengths = [math.sqrt(sum(float(x) ** 2 for x in v)) for v in (left, right)]
    if min(lengths) == 0.0:
        return 0.0
    if np.array_equal(left, right):
        return 1.0
    product = sum(float(x) * float(y) for x, y in zip(left, right, strict=True))
    return product / (lengths[0] * lengths[1])


def similarity_chunks(
    times: Sequence[int], rows: Sequence[Sequence[float]], num_chunks: int
) -> Chunks:
    """Cuts at the P - 1 lowest cosines of neighbours, of equal the newest."""
    valid = [position for position, time in enumerate(times) if time != 0]
    if not valid:
        return []
    likeness = [
        (cosine(rows[position], rows[position - 1]), -position)
        for position in valid[1:]
    ]
    cuts = sorted(-minus for _, minus in sorted(likeness)[: num_chunks - 1])
    return list(itertools.pairwise([valid[0], *cuts, len(times)]))


def chunks_of(
    config: SparseCTRRecipe,
    times: Sequence[int],
    rows: Sequence[Sequence[float]],
) -> Chunks:
    """Chunks of one history as a recipe says.

    Args:
        config: The model's.
        times: Times `[L]`, left-padded with 0.
        rows: The behaviours `[L, d]` before the first block.
    """
    if config.chunking == "time":
        return time_chunks(times, config.num_chunks)
    if config.chunking == "similarity":
        return similarity_chunks(times, rows, config.num_chunks)
    length = config.max_history
    if config.chunking == "balanced":
        length = sum(time != 0 for time in times)
    size = max(math.ceil(length / config.num_chunks), 1)
    return fixed_chunks(times, config.num_chunks, size)
