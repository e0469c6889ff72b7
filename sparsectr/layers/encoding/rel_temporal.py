"""RelTemporal: biases of time difference, hour and weekend.

Axes: B batch, Q queries, S keys, H heads.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.ops.places import Places
from sparsectr.ops.temporal_features import temporal_features
from sparsectr.ops.tensor import Tensor
from sparsectr.time_zone import UTC, TimeZone

BIASES = ("time", "hour", "weekend")
"""Those of Eqs. 12, 13 and 14."""


def initial_slopes(num_heads: int) -> list[float]:
    """Returns where slopes start: each head at a sensitivity of its own.

    Args:
        num_heads: H.
    """
    ratio = 2.0 ** (-8.0 / num_heads)
    return [ratio**head for head in range(num_heads)]


@keras.saving.register_keras_serializable(package="sparsectr")
class RelTemporal(Encoding):
    """Learnable temporal biases of the attention logits (Eqs. 12 to 15).

        bias = -(log_gap * s1[h] + hour_wave * s2[h] + weekend_differs * s3[h])

    The three quantities depend on times alone and are the same for every
    block; the slopes are a block's own.

    Args:
        num_heads: H.
        time_zone: The data set's, for weekends, or its dict.
        biases: Which of `BIASES` there are, one at least: the paper's
            variants B2, B3 and B4 lack one each.

    Call arguments:
        log_gap: float32 `[B, Q, S]`, `floor(log2(dt))`, dt in seconds.
        hour_wave: float32 `[B, Q, S]`, in `[0, 1]`.
        weekend_differs: float32 `[B, Q, S]`, 0 or 1.

    Returns:
        float32 `[B, Q, H, S]`.

    Raises:
        ValueError: If `num_heads` is below 1, or there are no such biases.

    Numerics:
        float32 under every policy: `log_gap * s1` reaches 30.

    Cost:
        O(Q S H); no table is read.
    """

    def __init__(
        self,
        num_heads: int,
        time_zone: TimeZone | Mapping[str, Any] = UTC,
        biases: Sequence[str] = BIASES,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        known = [name for name in BIASES if name in biases]
        if not known or list(biases) != known:
            raise ValueError(
                f"`biases` must be one or more of {', '.join(BIASES)}, in "
                f"this order. Received: biases={biases!r}"
            )
        self.num_heads = num_heads
        self.biases = tuple(biases)
        if not isinstance(time_zone, TimeZone):
            time_zone = TimeZone.from_dict(time_zone)
        self.time_zone = time_zone

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        slopes = initial_slopes(self.num_heads)

        for name in self.biases:
            weight = self.add_weight(
                name=f"slopes_{name}",
                shape=(self.num_heads,),
                initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                    slopes, dtype
                ),
            )
            setattr(self, f"slopes_{name}", weight)
        self.built = True

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Returns the three quantities, float32 `[B, Q, S + num_unplaced]`."""
        if len(keys.time.shape) == 2:
            keys = Places(*(ops.expand_dims(x, 1) for x in keys))
        features = temporal_features(
            ops.expand_dims(queries.time, 2), keys, self.time_zone
        )
        if not num_unplaced:
            return features
        # Of quantities that are 0, the bias is 0.
        columns = [(0, 0), (0, 0), (0, num_unplaced)]
        return tuple(ops.pad(feature, columns) for feature in features)

    def bias(self, features: Features) -> Tensor:
        """Returns the biases, float32 `[B, Q, H, S]`."""
        return self(*features)

    def call(
        self, log_gap: Tensor, hour_wave: Tensor, weekend_differs: Tensor
    ) -> Tensor:
        batch, queries, _ = ops.shape(log_gap)
        ones = ops.ones((batch * queries, 1), "float32")

        def spread(feature: Tensor, slopes: Tensor) -> Tensor:
            # The product with ones makes a slope of a query of its own, so
            # that the gradient is a sum over keys and then a matrix product.
            # As one sum over all axes but one, XLA takes several passes.
            rows = ops.matmul(ones, ops.expand_dims(slopes, 0))
            # A GPU may round the factors of a product: what is used of it is
            # the gradient alone.
            rows = rows + ops.stop_gradient(slopes - rows)
            rows = ops.reshape(rows, (batch, queries, self.num_heads, 1))
            return ops.expand_dims(feature, 2) * rows

        features = (log_gap, hour_wave, weekend_differs)
        return -functools.reduce(
            operator.add,
            (
                spread(feature, getattr(self, f"slopes_{name}"))
                for name, feature in zip(BIASES, features, strict=True)
                if name in self.biases
            ),
        )  # [B, Q, H, S]

    def compute_output_shape(
        self,
        log_gap_shape: Any,
        hour_wave_shape: Any = None,
        weekend_differs_shape: Any = None,
    ) -> tuple[int | None, ...]:
        batch, queries, keys = log_gap_shape
        return (batch, queries, self.num_heads, keys)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "time_zone": dataclasses.asdict(self.time_zone),
            "biases": list(self.biases),
        }
