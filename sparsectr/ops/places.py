"""Where rows stand: what chunkings and encodings know of queries and keys.

Axes: B batch, L history length, N rows.
"""

from typing import NamedTuple

from keras import ops

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
