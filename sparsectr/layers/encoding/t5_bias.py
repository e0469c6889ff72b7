"""T5Bias: a learned bias for each bucket of distance and each head.

Axes: B batch, Q queries, S keys, H heads.
"""

import math
from typing import Any

import keras
from keras import initializers, ops

from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.ops.places import Places, rows_between
from sparsectr.ops.tensor import Tensor

NUM_BUCKETS = 32
_NUM_EXACT = NUM_BUCKETS // 2
_MAX_DISTANCE = 128


@keras.saving.register_keras_serializable(package="sparsectr")
class T5Bias(Encoding):
    """Relative position bias in buckets (Raffel et al., JMLR 2020).

        bias = a[bucket(p), h]
        bucket(p) = p                                         below 16
                    min(16 + floor(16 ln(p / 16) / ln 8), 31)   from 16 on

    p is how many rows the key stands before the query, 0 for itself.

    Args:
        num_heads: H.

    Call arguments:
        bucket: int32 `[B, Q, S]` or `[1, Q, S]`, rows of a.

    Returns:
        float32 `[B, Q, H, S]`, or `[1, Q, H, S]`.

    Raises:
        ValueError: If `num_heads` is below 1.

    Numerics:
        float32 under every policy. No whole number is near enough to a border
        of buckets for the logarithm's rounding to matter.

    Cost:
        O(Q S H), with one table read a pair.

    Differs from the paper:
        The table is a block's own, where T5 has one for all. The scale
        1 / sqrt(d / H) of the logits stays. A chunk stands where its newest
        member does.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        self.position_bias = self.add_weight(
            name="position_bias",
            shape=(NUM_BUCKETS, self.num_heads),
            initializer=initializers.RandomNormal(stddev=0.02),
        )
        self.built = True

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Returns the buckets, int32 `[B, Q, S + num_unplaced]`.

        Keys without a place have the row behind the last. Where positions are
        the same for all requests, so are the rows: `[1, Q, ...]`.
        """
        distance = ops.clip(rows_between(queries, keys), 0, _MAX_DISTANCE - 1)
        ratio = ops.cast(ops.maximum(distance, _NUM_EXACT), "float32")
        share = ops.log(ratio / _NUM_EXACT) / math.log(
            _MAX_DISTANCE / _NUM_EXACT
        )
        far = ops.cast(ops.floor(share * _NUM_EXACT), "int32") + _NUM_EXACT
        bucket = ops.where(distance < _NUM_EXACT, distance, far)
        columns = [(0, 0), (0, 0), (0, num_unplaced)]
        return (ops.pad(bucket, columns, constant_values=NUM_BUCKETS),)

    def bias(self, features: Features) -> Tensor:
        """Returns the biases, float32 `[B, Q, H, S]`."""
        return self(*features)

    def call(self, bucket: Tensor) -> Tensor:
        # The row of keys that stand nowhere: 0, and not learned.
        table = ops.pad(self.position_bias, [(0, 1), (0, 0)])
        bias = ops.take(table, bucket, axis=0)  # [B, Q, S, H]
        return ops.transpose(bias, (0, 1, 3, 2))  # [B, Q, H, S]

    def compute_output_shape(self, bucket_shape: Any) -> tuple[int | None, ...]:
        batch, queries, keys = bucket_shape
        return (batch, queries, self.num_heads, keys)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
