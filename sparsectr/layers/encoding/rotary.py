"""What encodings that turn queries and keys have in common.

Axes: B batch, N rows, H heads, d width, d_h = d / H.
"""

from typing import Any

from keras import ops

from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.turn_planes import turn_planes


class Rotary(NoEncoding):
    """Turns queries and keys; adds nothing to the logits.

    A subclass says by which angles.

    Args:
        num_heads: H.

    Call arguments:
        rows: float `[B, N + num_unplaced, d]`, or `[B, 1, d]`.
        time: int64 `[B, N]`, Unix seconds.
        position: int32 `[B, N]` or `[1, N]`, counted back from the request.
        num_unplaced: How many of the rows, the last ones, stay as they are.
        is_query: Whether the rows are queries.

    Returns:
        float `[B, N + num_unplaced, d]`.

    Raises:
        ValueError: If `num_heads` is below 1, or heads have an odd width.

    Numerics:
        float32 under every policy; rows keep their dtype.

    Cost:
        O(N d), and nothing for a pair of query and key.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(autocast=False, **kwargs)
        if num_heads < 1:
            raise ValueError(
                "`num_heads` must be at least 1. "
                f"Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads

    def angle(
        self, time: Tensor, position: Tensor, head_width: int, *, is_query: bool
    ) -> Tensor:
        """Returns angles, float32, broadcasts to `[B, N, H, d_h / 2]`.

        Args:
            time: See `call`.
            position: See `call`.
            head_width: d_h.
            is_query: See `call`.
        """
        raise NotImplementedError

    def turn(
        self,
        rows: Tensor,
        places: Places,
        num_unplaced: int = 0,
        *,
        is_query: bool,
    ) -> Tensor:
        """Turns the rows. See `Encoding`."""
        return self(
            rows,
            places.time,
            places.position,
            num_unplaced=num_unplaced,
            is_query=is_query,
        )

    def turn_unplaced(
        self, keys: Tensor, num_unplaced: int, queries: Places
    ) -> Tensor:
        """Turns the last keys as the queries are. See `Encoding`."""
        last = self.turn(keys[:, -num_unplaced:], queries, is_query=True)
        return ops.concatenate([keys[:, :-num_unplaced], last], axis=1)

    def call(
        self,
        rows: Tensor,
        time: Tensor,
        position: Tensor,
        num_unplaced: int = 0,
        is_query: bool = False,
    ) -> Tensor:
        head_width = rows.shape[-1] // self.num_heads
        angle = self.angle(time, position, head_width, is_query=is_query)
        columns = [(0, 0), (0, num_unplaced), (0, 0), (0, 0)]
        return turn_planes(rows, ops.pad(angle, columns), self.num_heads)

    def compute_output_shape(
        self,
        rows_shape: Any,
        time_shape: Any,
        position_shape: Any = None,
    ) -> tuple[int | None, ...]:
        batch, count, width = rows_shape
        return (batch, time_shape[1] if count == 1 else count, width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
