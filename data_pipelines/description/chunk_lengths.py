"""Where TimeChunking cuts histories, for all users of a block at once."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Chunks(NamedTuple):
    """The chunks of histories.

    Attributes:
        shortest_cut: int64 seconds, for each history that fills all chunks
            the shortest of the gaps at which it is cut.
        length: int64, behaviors of each chunk, history by history.
        largest: int64 `[num_histories]`, behaviors of the largest chunk of
            each history.
    """

    shortest_cut: Array
    length: Array
    largest: Array


def cut_into_chunks(
    time: Array, start: Array, end: Array, num_chunks: int
) -> Chunks:
    """Cuts each history at its `num_chunks - 1` largest gaps.

    As the model does it: of equal gaps the more recent one is cut.

    Args:
        time: int64 Unix seconds of all behaviors.
        start: Row in `time` at which each history begins, ascending.
        end: Row at which it ends, exclusive. No history is empty.
        num_chunks: Chunks of a history with at least as many behaviors.
    """
    if len(start) == 0:
        nothing = np.zeros(0, np.int64)
        return Chunks(nothing, nothing, nothing)
    num_gaps = end - start - 1
    gap_end = np.cumsum(num_gaps)
    gap_start = gap_end - num_gaps
    history = np.repeat(np.arange(len(start)), num_gaps)
    # The row behind each gap.
    row = 1 + np.arange(gap_end[-1]) + np.repeat(start - gap_start, num_gaps)
    gap = time[row] - time[row - 1]
    # Stable, so that of equal gaps the most recent comes last.
    order = np.lexsort((gap, history))
    num_cuts = np.minimum(num_chunks - 1, num_gaps)
    place = np.arange(gap_end[-1])
    is_cut = place >= np.repeat(gap_end - num_cuts, num_gaps)
    chunk_start = np.sort(np.concatenate([start, row[order[is_cut]]]))
    first_chunk = np.cumsum(num_cuts + 1) - (num_cuts + 1)
    chunk_end = np.append(chunk_start[1:], 0)
    chunk_end[np.append(first_chunk[1:], len(chunk_start)) - 1] = end
    length = chunk_end - chunk_start
    has_all = (num_cuts == num_chunks - 1) & (num_cuts > 0)
    return Chunks(
        shortest_cut=gap[order[(gap_end - num_cuts)[has_all]]],
        length=length,
        largest=np.maximum.reduceat(length, first_chunk),
    )
