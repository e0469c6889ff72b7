"""TRoPE: rows are turned by their times.

Axes: B batch, N rows, H heads, d width, d_h = d / H.
"""

import math
from typing import Any

import keras
from keras import ops

from sparsectr.layers.encoding.rotary import Rotary
from sparsectr.ops.tensor import Tensor

EPOCH = 1_577_836_800
"""2020-01-01T00:00:00Z, from which times are counted. A constant: states that
are kept have to stay right."""

SHORTEST, LONGEST = 1e2, 1e8
"""Seconds in which the first and the last plane turn by one radian."""


@keras.saving.register_keras_serializable(package="sparsectr")
class TRoPE(Rotary):
    """Rotary embedding of time.

        angle of plane i = alpha_i * (t - epoch) / beta_i

    i goes through the d / 2 planes of all heads, beta_i geometrically from
    1e2 to 1e8 seconds; alpha is learned and begins at 1. With the same angle
    for queries and keys, their product depends on
    `alpha_i * (t_q - t_k) / beta_i`: shifting all times changes nothing. In
    the published form queries and keys have an alpha of their own and turn in
    opposite senses, so that the phase is a sum.

    Args:
        width: d.
        num_heads: H.
        is_relative: Whether queries and keys turn alike; False is the
            published form.

    Call arguments and returns are those of `Rotary`.

    Raises:
        ValueError: If `num_heads` is below 1, or `width` is not an even
            number a head.

    Numerics:
        Times are integers until the epoch is subtracted, and angles float64
        until whole turns are: of a century there are 5 million, which float32
        could not tell apart. The time of a key that stands for several is
        rounded down, less than 0.01 alpha rad.

    Cost:
        O(N d).

    Differs from the paper:
        A chunk is turned after it has been summarized. Planes are spread over
        all heads, of which the first are the fast ones.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        is_relative: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        if width < 1 or width % (2 * num_heads):
            raise ValueError(
                "`width` must be an even number for each head. "
                f"Received: width={width}, num_heads={num_heads}"
            )
        self.width = width
        self.is_relative = is_relative

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        def add_rates(name: str) -> Any:
            return self.add_weight(
                name=name, shape=(self.width // 2,), initializer="ones"
            )

        self.query_rates = add_rates(
            "rates" if self.is_relative else "query_rates"
        )
        self.key_rates = self.query_rates
        if not self.is_relative:
            self.key_rates = add_rates("key_rates")
        self.built = True

    def angle(
        self, time: Tensor, position: Tensor, head_width: int, *, is_query: bool
    ) -> Tensor:
        """Returns angles, float32 `[B, N, H, d_h / 2]`. See `Rotary`."""
        del position
        planes = self.width // 2
        ratio = (LONGEST / SHORTEST) ** (1.0 / max(planes - 1, 1))
        sense = 1.0 if is_query or self.is_relative else -1.0
        speeds = [sense / (SHORTEST * ratio**i) for i in range(planes)]
        rates = self.query_rates if is_query else self.key_rates
        speed = ops.cast(rates, "float64") * ops.convert_to_tensor(
            speeds, "float64"
        )
        seconds = ops.cast(time - EPOCH, "float64")
        angle = ops.expand_dims(seconds, 2) * speed  # [B, N, d / 2]
        turns = ops.stop_gradient(ops.round(angle / math.tau))
        angle = ops.cast(angle - turns * math.tau, "float32")
        shape = (-1, ops.shape(time)[1], self.num_heads, head_width // 2)
        return ops.reshape(angle, shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "is_relative": self.is_relative,
        }
