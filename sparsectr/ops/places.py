"""Where rows stand: what chunkings and encodings know of queries and keys.

Axes: B batch, L history length, N rows, w window.
"""

from typing import NamedTuple

from keras import ops

from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.local_window import shift, windows
from sparsectr.ops.tensor import Tensor


class Places(NamedTuple):
    """Time, position and validity of rows.

    Attributes:
        time: int64 `[B, N]`, Unix seconds, rounded down; 0 for padding.
        position: int32, broadcasts to `[B, N]`, counted back from the
            request: 0 for a candidate, 1 for the newest behaviour. Padding
            on the left moves none.
        valid: bool `[B, N]`; False for padding.
        has_fraction: bool `[B, N]`, True where the exact time, which is the
            mean of several, is a fraction of a second after `time`.

    Keys that differ from query to query have one more axis: `[B, Q, N]`.
    """

    time: Tensor
    position: Tensor
    valid: Tensor
    has_fraction: Tensor


def places_of_history(behavior_time: Tensor) -> Places:
    """Returns the places of behaviours.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
    """
    length = ops.shape(behavior_time)[1]
    position = length - ops.arange(length, dtype="int32")
    return Places(
        behavior_time,
        ops.expand_dims(position, 0),
        behavior_time > 0,
        ops.zeros_like(behavior_time, dtype="bool"),
    )


def places_of_request(request_time: Tensor) -> Places:
    """Returns the one place, `[B, 1]`, of all candidates of a request.

    Args:
        request_time: int64 `[B]`, Unix seconds.
    """
    time = ops.expand_dims(request_time, 1)
    return Places(
        time,
        ops.zeros_like(time, dtype="int32"),
        ops.ones_like(time, dtype="bool"),
        ops.zeros_like(time, dtype="bool"),
    )


def places_of_newest(
    history: Places, first: Tensor, count: int
) -> tuple[Tensor, Places]:
    """Returns which behaviours are the newest, and their places.

    Args:
        history: Places `[B, L]`.
        first: int32 `[B, 1]`, index of the oldest valid behaviour.
        count: N.

    Returns:
        Indices int32 `[B, N]`, 0 where there are fewer, and places `[B, N]`.
    """
    length = ops.shape(history.time)[1]
    newest = length + ops.arange(-count, 0, dtype="int32")
    valid = newest >= first  # [B, N]
    index = ops.where(valid, newest, 0)
    return index, Places(
        gather_rows(history.time, index),
        length - index,
        valid,
        ops.zeros_like(valid),
    )


def places_of_windows(history: Places, first: Tensor, size: int) -> Places:
    """Returns those of the behaviours up to each, and of itself, `[B, L, w]`.

    Args:
        history: Places `[B, L]`.
        first: int32 `[B, 1]`, index of the oldest valid behaviour.
        size: w.
    """
    length = ops.shape(history.time)[1]
    index = ops.reshape(ops.arange(length, dtype="int32"), (1, -1, 1))
    valid = index >= ops.expand_dims(first, 2)  # [B, L, 1]
    near_valid = ops.concatenate(
        [shift(valid, n) for n in reversed(range(size))], axis=2
    )
    return Places(
        windows(history.time, size),
        ops.expand_dims(history.position, 2)
        + ops.arange(size - 1, -1, -1, dtype="int32"),
        near_valid,
        ops.zeros_like(near_valid),
    )


def rows_between(queries: Places, keys: Places) -> Tensor:
    """Returns how many rows each key stands before each query.

    Args:
        queries: Places `[B, Q]`.
        keys: Places `[B, S]`, or `[B, Q, S]` for keys of each query.

    Returns:
        int32, broadcasts to `[B, Q, S]`; below 0 for a key behind the query.
    """
    position = keys.position
    if len(keys.time.shape) == 2:
        position = ops.expand_dims(position, 1)
    return position - ops.expand_dims(queries.position, 2)
