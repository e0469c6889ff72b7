"""RoPE: rows are turned by their positions.

Axes: B batch, N rows, d_h width of a head.
"""

import keras
from keras import ops

from sparsectr.layers.encoding.rotary import Rotary
from sparsectr.ops.tensor import Tensor

_BASE = 10000.0


@keras.saving.register_keras_serializable(package="sparsectr")
class RoPE(Rotary):
    """Rotary position embedding (Su et al., 2021).

        angle of plane i = p * 10000^(-2 i / d_h),  i = 0, ..., d_h / 2 - 1

    p is the position of the row, the newest at the front: the product of a
    query and a key depends on the rows between them alone. Nothing is
    learned.

    Arguments, call arguments, returns and errors are those of `Rotary`.

    Numerics:
        float32 under every policy: a position of 2^17 is off by 0.01 rad at
        most.

    Cost:
        O(N d).

    Differs from the paper:
        Plane i is that of columns i and i + d_h / 2 of a head, not of two
        columns side by side. A chunk stands where its newest member does, and
        is turned after it has been summarized.
    """

    def angle(
        self, time: Tensor, position: Tensor, head_width: int, *, is_query: bool
    ) -> Tensor:
        """Returns angles, float32 `[B, N, 1, d_h / 2]`. See `Rotary`."""
        del time, is_query
        rates = [_BASE ** (-i / head_width) for i in range(0, head_width, 2)]
        # Positions count back, and only their differences matter.
        forth = ops.cast(-position, "float32")[..., None, None]
        return forth * ops.convert_to_tensor(rates, "float32")
