"""TimeChunking: where a history is cut.

Axes: B batch, L history length, P chunks, m transition behaviours.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.ops.gather_rows import gather_rows

# Bits of the smallest normal float32: what lies below may be taken for 0.
_SMALLEST_NORMAL_BITS = 1 << 23

# Seconds, 67 years. With the above, the bits of the largest float32.
_LONGEST_GAP = (1 << 31) - (1 << 24) - 1


class TimeChunks(NamedTuple):
    """The chunks of each history, and the behaviours that stand for them.

    Attributes:
        start: int32 `[B, P]`, position of a chunk's oldest behaviour.
        end: int32 `[B, P]`, one past its newest; `start` if it is empty.
        chunk_time: int64 `[B, P]`, mean time in Unix seconds, rounded up.
        chunk_weights: float32 `[B, P, L]`, 1 / size for the members of a
            chunk, so that a product with it is the mean of a chunk.
        transition_index: int32 `[B, m P]`, positions of the last m
            behaviours of each chunk, chunk by chunk, oldest first.
        transition_mask: bool `[B, m P]`, False where a chunk is shorter.
        transition_time: int64 `[B, m P]`, Unix seconds.
    """

    start: Any
    end: Any
    chunk_time: Any
    chunk_weights: Any
    transition_index: Any
    transition_mask: Any
    transition_time: Any


@keras.saving.register_keras_serializable(package="sparsectr")
class TimeChunking(keras.layers.Layer):
    """Cuts each history at its largest time gaps (section 3.4.1).

    Every history gets the same number of chunks, of varied length: the cuts
    are the `num_chunks - 1` largest gaps between neighbouring valid
    behaviours. Of equal gaps the more recent wins. With fewer valid
    behaviours than chunks the missing chunks, the last ones, are empty.

    Args:
        num_chunks: P, chunks of a history.
        num_transition: m, behaviours at the end of a chunk that
            `transition_index` names.

    Call arguments:
        behavior_time: int64 `[B, L]`, Unix seconds, oldest to newest,
            left-padded with 0.

    Returns:
        `TimeChunks`.

    Raises:
        ValueError: If an argument is below 1.

    Numerics:
        Integers throughout. The mean time of a chunk is rounded up: then the
        floors of Eqs. 12 and 13 are those of the exact mean, because nothing
        older than a chunk's end ever reads it.

    Cost:
        O(L log P) for the cuts, O(L P) for the weights.

    Differs from the paper:
        Its "top |P| intervals" counts the cut between padding and the first
        valid behaviour, so that a full history would get one chunk more.
    """

    def __init__(
        self, num_chunks: int, num_transition: int = 1, **kwargs: Any
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        for name, value in (
            ("num_chunks", num_chunks),
            ("num_transition", num_transition),
        ):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        self.num_chunks = num_chunks
        self.num_transition = num_transition

    def call(self, behavior_time: Any) -> TimeChunks:
        start, end = self._cut(behavior_time)
        chunk_time, chunk_weights = _summarize(behavior_time, start, end)
        index, mask = self._last_members(start, end)
        index = ops.where(mask, index, 0)
        return TimeChunks(
            start=start,
            end=end,
            chunk_time=chunk_time,
            chunk_weights=chunk_weights,
            transition_index=index,
            transition_mask=mask,
            transition_time=gather_rows(behavior_time, index),
        )

    def _cut(self, behavior_time: Any) -> tuple[Any, Any]:
        """Returns where chunks start and end, int32 `[B, P]` each."""
        length = ops.shape(behavior_time)[1]
        valid = behavior_time > 0  # [B, L]
        num_valid = ops.sum(ops.cast(valid, "int32"), axis=1, keepdims=True)
        first = length - num_valid  # [B, 1]

        gap = behavior_time[:, 1:] - behavior_time[:, :-1]  # [B, L - 1]
        # A gap is never negative in sorted times; -1 never wins.
        gap = ops.where(valid[:, :-1], ops.maximum(gap, 0), -1)
        # Room for P - 1 cuts however short the history, newest gap first:
        # top_k prefers the lower index among equals.
        num_cuts = self.num_chunks - 1
        gap = ops.pad(gap, [(0, 0), (num_cuts, 0)], constant_values=-1)
        order, place = ops.top_k(
            _as_ordered_floats(ops.flip(gap, axis=1)), num_cuts
        )  # [B, P - 1]
        cut = length - 1 - ops.cast(place, "int32")
        cut = ops.sort(ops.where(order > 0.0, cut, length), axis=1)

        start = ops.concatenate([first, cut], axis=1)  # [B, P]
        end = ops.concatenate(
            [cut, ops.full_like(first, length)], axis=1
        )  # [B, P]
        return start, end

    def _last_members(self, start: Any, end: Any) -> tuple[Any, Any]:
        """Returns index and mask of the last m of each chunk, `[B, m P]`."""
        steps = ops.arange(-self.num_transition, 0, dtype="int32")
        index = ops.expand_dims(end, 2) + steps  # [B, P, m]
        mask = index >= ops.expand_dims(start, 2)
        shape = (-1, self.num_chunks * self.num_transition)
        return ops.reshape(index, shape), ops.reshape(mask, shape)

    def compute_output_shape(self, behavior_time_shape: Any) -> TimeChunks:
        batch, length = behavior_time_shape
        chunks = (batch, self.num_chunks)
        transition = (batch, self.num_chunks * self.num_transition)
        return TimeChunks(
            start=chunks,
            end=chunks,
            chunk_time=chunks,
            chunk_weights=(*chunks, length),
            transition_index=transition,
            transition_mask=transition,
            transition_time=transition,
        )

    def compute_output_spec(self, behavior_time: Any) -> TimeChunks:
        dtypes = TimeChunks(
            start="int32",
            end="int32",
            chunk_time=behavior_time.dtype,
            chunk_weights="float32",
            transition_index="int32",
            transition_mask="bool",
            transition_time=behavior_time.dtype,
        )
        shapes = self.compute_output_shape(behavior_time.shape)
        return TimeChunks(*map(keras.KerasTensor, shapes, dtypes))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_chunks": self.num_chunks,
            "num_transition": self.num_transition,
        }


def _as_ordered_floats(gap: Any) -> Any:
    """Floats in the very order of the gaps, and 0 for what is none.

    Compilers have a fast top_k for floats alone: XLA's on a CPU takes a tenth
    of the time of the one for integers. The bits of a positive float, read
    as an integer, are in the order of the floats; 2^23 more than the gap are
    those of a normal float up to gaps of 67 years, and longer ones are
    taken for that.

    Args:
        gap: int64 `[B, K]`, seconds, -1 for none.

    Returns:
        float32 `[B, K]`, positive where there is a gap.
    """
    bits = ops.cast(ops.minimum(gap, _LONGEST_GAP), "int32")
    bits = ops.where(bits < 0, 0, bits + _SMALLEST_NORMAL_BITS)
    # `view` wants to know the size of the last axis.
    floats = ops.view(ops.expand_dims(bits, -1), "float32")
    return ops.squeeze(floats, -1)


def _summarize(behavior_time: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """Returns mean times `[B, P]` and mean weights `[B, P, L]`."""
    position = ops.arange(ops.shape(behavior_time)[1], dtype="int32")
    member = ops.logical_and(
        position >= ops.expand_dims(start, 2),
        position < ops.expand_dims(end, 2),
    )  # [B, P, L]
    size = ops.maximum(end - start, 1)  # [B, P]
    total = ops.sum(
        ops.where(member, ops.expand_dims(behavior_time, 1), 0), axis=2
    )  # [B, P]
    size_like_time = ops.cast(size, total.dtype)
    mean = -((-total) // size_like_time)  # rounded up
    weights = ops.where(
        member, 1.0 / ops.expand_dims(ops.cast(size, "float32"), 2), 0.0
    )
    return mean, weights
