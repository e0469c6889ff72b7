"""Dropout whose mask does not depend on how a batch is divided."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor

_PART: contextvars.ContextVar[tuple[Tensor, int] | None] = (
    contextvars.ContextVar("part", default=None)
)


@contextlib.contextmanager
def part_of_batch(part: Tensor, num_parts: int) -> Iterator[None]:
    """Tells the layers within which part of a batch they see.

    Args:
        part: int32 scalar, which one.
        num_parts: Into how many equal ones the batch is divided.
    """
    token = _PART.set((part, num_parts))
    try:
        yield
    finally:
        _PART.reset(token)


@keras.saving.register_keras_serializable(package="sparsectr")
class Dropout(keras.layers.Dropout):
    """Keras's dropout, with the mask that the whole batch would have.

    Devices that have a part of a batch each draw the mask of all of it, from
    the same seed, and take their own rows.

    Call arguments:
        inputs: float `[B, ...]`, or rows of a request one after another.
        training: Whether dropout is applied.

    Returns:
        float tensor like `inputs`.

    Cost:
        As many random numbers as the whole batch needs, on each device.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        place = _PART.get()
        if place is None or not training or not self.rate:
            return super().call(inputs, training=training)
        part, num_parts = place
        # In the order of the rows of the whole batch.
        ones = ops.ones((num_parts, *ops.shape(inputs)), inputs.dtype)
        masks = keras.random.dropout(
            ones, self.rate, seed=self.seed_generator
        )  # [num_parts, B, ...]
        return inputs * ops.take(masks, part, axis=0)
