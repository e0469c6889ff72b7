"""HSTUBias: a learned bias for each distance and for each bucket of time.

Axes: B batch, Q queries, S keys.
"""

from typing import Any

import keras
from keras import initializers, ops

from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.ops.places import Places, rows_between
from sparsectr.ops.runtime_one import runtime_one
from sparsectr.ops.tensor import Tensor

NUM_BUCKETS = 129
_BUCKET_WIDTH = 0.301
"""In powers of e; the published number, near the logarithm of 2 to base 10."""


@keras.saving.register_keras_serializable(package="sparsectr")
class HSTUBias(Encoding):
    """Relative bias of position and time (Zhai et al., ICML 2024).

        bias = a[p] + b[floor(ln(max(dt, 1)) / 0.301)]

    p is how many rows the key stands before the query, 0 for itself; dt the
    seconds between them. Both tables are a block's own, and its heads share
    them.

    Args:
        num_positions: Rows of a; keys farther back share the last one.

    Call arguments:
        distance: int32 `[B, Q, S]` or `[1, Q, S]`, rows of a.
        bucket: int32 `[B, Q, S]`, rows of b.

    Returns:
        float32 `[B, Q, 1, S]`.

    Raises:
        ValueError: If `num_positions` is below 1.

    Numerics:
        float32 under every policy. dt is exact to 2^24 s; beyond, and where
        dt is within some 1e-6 of the border of a bucket, it may be counted
        to the other side.

    Cost:
        O(Q S), with one table read a pair; that of positions is read once for
        all requests where keys stand in the same order in all.

    Differs from the paper:
        Only the rows of a for keys at or before the query: a causal mask hides
        the others. Time differences are those of the two rows, where the
        published code, which predicts the next item, has the time of the row
        after the query. The time of a key that stands for several is rounded
        down.
    """

    def __init__(self, num_positions: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if num_positions < 1:
            raise ValueError(
                "`num_positions` must be at least 1. "
                f"Received: num_positions={num_positions}"
            )
        self.num_positions = num_positions

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        def add_table(name: str, num_rows: int) -> Any:
            return self.add_weight(
                name=name,
                shape=(num_rows,),
                initializer=initializers.RandomNormal(stddev=0.02),
            )

        self.position_bias = add_table("position_bias", self.num_positions)
        self.time_bias = add_table("time_bias", NUM_BUCKETS)
        self.built = True

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Returns the rows of both tables, int32 `[B, Q, S + num_unplaced]`.

        Keys without a place have the row behind the last. Where positions are
        the same for all requests, so are the rows: `[1, Q, ...]`.
        """
        if len(keys.time.shape) == 2:
            keys = Places(*(ops.expand_dims(x, 1) for x in keys))
        distance = ops.clip(
            rows_between(queries, keys), 0, self.num_positions - 1
        )
        gap = ops.abs(ops.expand_dims(queries.time, 2) - keys.time)
        seconds = ops.maximum(ops.cast(gap, "float32"), 1.0)
        bucket = ops.floor(ops.log(seconds) / _BUCKET_WIDTH)
        bucket = ops.cast(ops.minimum(bucket, NUM_BUCKETS - 1), "int32")
        if not num_unplaced:
            return distance, bucket
        columns = [(0, 0), (0, 0), (0, num_unplaced)]
        return (
            ops.pad(distance, columns, constant_values=self.num_positions),
            ops.pad(bucket, columns, constant_values=NUM_BUCKETS),
        )

    def bias(self, features: Features) -> Tensor:
        """Returns the biases, float32 `[B, Q, 1, S]`."""
        return self(*features)

    def call(self, distance: Tensor, bucket: Tensor) -> Tensor:
        # The row of keys that stand nowhere: 0, and not learned.
        position_bias = ops.pad(self.position_bias, [(0, 1)])
        time_bias = ops.pad(self.time_bias, [(0, 1)])
        bias = ops.take(position_bias, distance) + ops.take(time_bias, bucket)
        # Or XLA reads the tables once more for every head.
        bias = bias / runtime_one(self.time_bias)
        return ops.expand_dims(bias, 2)  # [B, Q, 1, S]

    def compute_output_shape(
        self, distance_shape: Any, bucket_shape: Any
    ) -> tuple[int | None, ...]:
        batch, queries, keys = bucket_shape
        return (batch, queries, 1, keys)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_positions": self.num_positions}
