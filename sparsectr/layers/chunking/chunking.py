"""The interface of chunkings: where a history is cut, and what stands for it.

Axes: B batch, L history length, P chunks, m transition behaviours.
"""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor


class Chunks(NamedTuple):
    """The chunks of each history, and the behaviours that stand for them.

    Attributes:
        start: int32 `[B, P]`, index of a chunk's oldest behaviour.
        end: int32 `[B, P]`, one past its newest; `start` if it is empty.
        weights: float32 `[B, P, L]`, 1 / size for the members of a chunk, so
            that a product with it is the mean of a chunk.
        place: Places of the chunks, `[B, P]`: mean time, and position of the
            newest member.
        transition_index: int32 `[B, m P]`, indices of the last m behaviours
            of each chunk, chunk by chunk, oldest first.
        transition_place: Places of those, `[B, m P]`, not valid where a chunk
            is shorter.
    """

    start: Tensor
    end: Tensor
    weights: Tensor
    place: Places
    transition_index: Tensor
    transition_place: Places


class Chunking(keras.layers.Layer):
    """Cuts each history into chunks (section 3.4.1).

    Every history gets the same number of chunks. Of those that do not come
    about, the last ones are empty. A subclass says where to cut.

    In training, chunks that no history of the batch is long enough for are
    left out: P is then at most L. A user state has them all, always.

    Args:
        num_chunks: P, chunks of a history.
        num_transition: m, behaviours at the end of a chunk that
            `transition_index` names.

    Call arguments:
        history: Places of the behaviours, oldest to newest, padding first.
        rows: float `[B, L, d]`, the behaviours; a chunking by time alone
            reads none.
        training: Whether chunks are left out.

    Returns:
        `Chunks`.

    Raises:
        ValueError: If an argument is below 1.
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

    def cut(
        self, history: Places, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns where chunks start and end, int32 `[B, P]` each.

        Args:
            history: See `call`.
            rows: See `call`.
        """
        raise NotImplementedError

    def call(
        self,
        history: Places,
        rows: Tensor | None = None,
        training: bool = False,
    ) -> Chunks:
        # Keras hands a list to what it has loaded from a file.
        history = Places(*history)
        start, end = self.cut(history, rows)
        length = ops.shape(history.time)[1]
        if training:
            count = _most_chunks(self.num_chunks, length)
            start, end = start[:, :count], end[:, :count]
        mean_time, has_fraction, weights = _summarize(history.time, start, end)
        index, is_member = self._last_members(start, end)
        index = ops.where(is_member, index, 0)
        return Chunks(
            start=start,
            end=end,
            weights=weights,
            place=Places(
                mean_time, length - end + 1, end > start, has_fraction
            ),
            transition_index=index,
            transition_place=Places(
                gather_rows(history.time, index),
                length - index,
                is_member,
                ops.zeros_like(is_member),
            ),
        )

    def _last_members(
        self, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns index and mask of the last m of each chunk, `[B, m P]`."""
        steps = ops.arange(-self.num_transition, 0, dtype="int32")
        index = ops.expand_dims(end, 2) + steps  # [B, P, m]
        mask = index >= ops.expand_dims(start, 2)
        shape = (-1, ops.shape(end)[1] * self.num_transition)
        return ops.reshape(index, shape), ops.reshape(mask, shape)

    def compute_output_shape(
        self, history_shape: Any, rows_shape: Any = None
    ) -> Chunks:
        batch, length = history_shape[0]
        chunks = (batch, self.num_chunks)
        transition = (batch, self.num_chunks * self.num_transition)
        return Chunks(
            start=chunks,
            end=chunks,
            weights=(*chunks, length),
            place=Places(*[chunks] * 4),
            transition_index=transition,
            transition_place=Places(*[transition] * 4),
        )

    def compute_output_spec(
        self,
        history: Places,
        rows: Tensor | None = None,
        training: bool = False,
    ) -> Chunks:
        del training  # Whose shapes are asked for are those of a state.
        shapes = self.compute_output_shape([x.shape for x in history])
        place = ("int64", "int32", "bool", "bool")

        def places(of: Places) -> Places:
            return Places(*map(keras.KerasTensor, of, place))

        return Chunks(
            start=keras.KerasTensor(shapes.start, "int32"),
            end=keras.KerasTensor(shapes.end, "int32"),
            weights=keras.KerasTensor(shapes.weights, "float32"),
            place=places(shapes.place),
            transition_index=keras.KerasTensor(
                shapes.transition_index, "int32"
            ),
            transition_place=places(shapes.transition_place),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_chunks": self.num_chunks,
            "num_transition": self.num_transition,
        }


def newest_of_highest(scores: Tensor, num_cuts: int) -> Tensor:
    """Cuts before the rows with the highest scores; of equal ones the newest.

    Args:
        scores: float32 `[B, L - 1]`, of a cut before each row but the first;
            -inf where there may be none.
        num_cuts: Cuts to make, at most.

    Returns:
        int32 `[B, num_cuts]`, where chunks start; L for a cut that does not
        come about.
    """
    length = ops.shape(scores)[1] + 1
    # Room for all cuts however short the history, newest first: top_k prefers
    # the lower index among equals.
    scores = ops.pad(scores, [(0, 0), (num_cuts, 0)], constant_values=-math.inf)
    order, place = ops.top_k(ops.flip(scores, axis=1), num_cuts)
    cut = length - 1 - ops.cast(place, "int32")
    return ops.where(order > -math.inf, cut, length)


def between_cuts(history: Places, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where chunks start and end, int32 `[B, P]` each.

    Args:
        history: Places of the behaviours.
        cut: int32 `[B, P - 1]`, in any order, of starts of chunks but the
            oldest; L for a chunk that does not come about.
    """
    length = ops.shape(history.time)[1]
    num_valid = ops.sum(ops.cast(history.valid, "int32"), axis=1, keepdims=True)
    first = length - num_valid  # [B, 1]
    cut = ops.sort(cut, axis=1)
    start = ops.concatenate([first, cut], axis=1)  # [B, P]
    end = ops.concatenate([cut, ops.full_like(first, length)], axis=1)  # [B, P]
    return start, end


def _most_chunks(num_chunks: int, length: Tensor | int) -> Tensor | int:
    """Returns how many chunks there can be, at least 1."""
    if isinstance(length, int):
        return min(num_chunks, max(length, 1))
    return ops.clip(length, 1, num_chunks)


def _summarize(
    behavior_time: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean times, what they leave out, and weights of the means.

    Returns:
        int64 `[B, P]`, rounded down; bool `[B, P]`, whether they were
        rounded; float32 `[B, P, L]`.
    """
    index = ops.arange(ops.shape(behavior_time)[1], dtype="int32")
    member = ops.logical_and(
        index >= ops.expand_dims(start, 2), index < ops.expand_dims(end, 2)
    )  # [B, P, L]
    size = ops.maximum(end - start, 1)  # [B, P]
    total = ops.sum(
        ops.where(member, ops.expand_dims(behavior_time, 1), 0), axis=2
    )  # [B, P]
    divisor = ops.cast(size, total.dtype)
    mean = total // divisor
    weights = ops.where(
        member, 1.0 / ops.expand_dims(ops.cast(size, "float32"), 2), 0.0
    )
    return mean, total > mean * divisor, weights
