"""Where TimeChunking cuts histories, for all users of a block."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Of a call: large enough to be fast, and small beside a block.
_MAX_CELLS = 2**19


class Chunks(NamedTuple):
    """The chunks of histories.

    Attributes:
        shortest_cut: int64 seconds, for each history that fills all chunks
            the shortest of the gaps at which it is cut, in no order.
        length: int32, behaviors of each chunk, in no order.
        largest: int32 `[num_histories]`, behaviors of the largest chunk of
            each history.
    """

    shortest_cut: Array
    length: Array
    largest: Array


def cut_into_chunks(
    time: Array, start: Array, end: Array, num_chunks: int
) -> Chunks:
    """Cuts each history as the model does: by its own layer.

    Args:
        time: int64 Unix seconds of all behaviors.
        start: Row in `time` at which each history begins.
        end: Row at which it ends, exclusive. No history is empty.
        num_chunks: Chunks of a history with at least as many behaviors.
    """
    cut = _layer_of(num_chunks)
    num_behaviors = end - start
    largest = np.zeros(len(start), np.int32)
    lengths, shortest_cuts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    # Histories of a call are about as long, so that little of it is padding.
    order = np.argsort(num_behaviors)
    while len(order):
        longest = num_behaviors[order[-1]]
        count = max(_MAX_CELLS // (longest + num_chunks), 1)
        order, chosen = order[:-count], order[-count:]
        row = end[chosen, np.newaxis] + np.arange(-longest, 0)
        is_valid = row >= start[chosen, np.newaxis]
        padded = np.where(is_valid, time[np.maximum(row, 0)], 0)
        chunk_start, chunk_end = (part.numpy() for part in cut(padded))
        length = chunk_end - chunk_start
        lengths.append(length[length > 0])
        largest[chosen] = length.max(axis=1)
        if num_chunks > 1:
            is_cut = length[:, -1] > 0
            behind = chunk_start[is_cut, 1:]
            padded = padded[is_cut]
            gaps = np.take_along_axis(
                padded, behind, axis=1
            ) - np.take_along_axis(padded, behind - 1, axis=1)
            shortest_cuts.append(gaps.min(axis=1))
    return Chunks(
        np.concatenate(shortest_cuts), np.concatenate(lengths), largest
    )


@functools.cache
def _layer_of(num_chunks: int) -> Callable[[Array], tuple[Any, Any]]:
    """Returns what gives starts and ends `[B, P]` of times `[B, L]`."""
    # Late, so that `--help` and refusals need not wait for TensorFlow.
    from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf

    from sparsectr.layers.chunking.time_chunking import TimeChunking
    from sparsectr.ops.places import places_of_history

    layer = TimeChunking(num_chunks)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int64)],
        autograph=False,
    )
    def cut(time: Any) -> tuple[Any, Any]:
        return layer.cut(places_of_history(time))

    def cut_on_cpu(time: Array) -> tuple[Any, Any]:
        with tf.device("CPU"):  # a GPU may be training
            found: tuple[Any, Any] = cut(time)
            return found

    return cut_on_cpu
