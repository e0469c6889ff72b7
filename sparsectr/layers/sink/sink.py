"""The interface of sinks: how the logits of a query become weights.

Axes: B batch, Q queries, S keys, H heads, d width.
"""

from typing import Any

import keras

from sparsectr.ops.tensor import Tensor


class Sink(keras.layers.Layer):
    """What a query may read beside its keys, so that it can read less.

    A softmax alone has to sum to one, however little of the keys is like the
    query. A sink takes the rest.
    """

    takes_weight = True
    """Whether the weights of a query's keys may sum to less than one."""

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        """Creates the weights of one block, if there are any.

        Its argument is the shape of rows, `[B, Q, d]`.
        """
        self.built = True

    def with_own_key(
        self, keys: Tensor, values: Tensor, bias: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Adds a key of the sink's own to what queries read, if it has one.

        Args:
            keys: float `[B, S, d]`, the heads side by side.
            values: float `[B, S, d]`.
            bias: float32 `[B, Q, H, S]`, or `None`.
            mask: bool `[B, Q, S]`.

        Returns:
            The same four, with one key more behind the others or without.
        """
        return keys, values, bias, mask

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Turns logits into weights, before the division.

        Args:
            logits: float tensor `[..., S]`.
            mask: bool tensor that broadcasts to it; True = keep.
            head_axis: Which axis of `logits` the heads are.

        Returns:
            float32 weights like `logits`; and float32 `[..., 1]`, what they
            are to be divided by, infinite where a query may read nothing.
        """
        raise NotImplementedError
