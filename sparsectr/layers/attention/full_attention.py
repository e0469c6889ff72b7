"""Full attention: every behaviour a key, the paper's variant A1.

Axes: B batch, L history length, Q queries, H heads, d width.
"""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.evo_attention import Features
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.ops.head_attention import attend_by_head
from sparsectr.ops.same_as import same_as
from sparsectr.ops.temporal_features import temporal_features

# Into so many blocks queries are cut, each of which reads the keys up to its
# end: 17 of 32 pairs. More blocks would save little more and take longer to
# compile (benchmarks/LOG.md).
_NUM_QUERY_BLOCKS = 16
_LEAST_BLOCK = 64


class QueryBlock(NamedTuple):
    """Behaviours that ask together; they read keys up to the last of them.

    Attributes:
        start: Position of the first.
        end: One past the last; `None` for the end of the history.
        features: float32 `[B, end - start, end]` three times.
        mask: bool `[B, end - start, end]`; True = keep.
    """

    start: int
    end: int | None
    features: Features
    mask: Any


class FullPlan(NamedTuple):
    """All of full attention that depends on times alone.

    Attributes:
        key_time: int64 `[B, L]`, Unix seconds.
        key_mask: bool `[B, L]`.
        query_blocks: Of the history, in order; `None` where only candidates
            will ask.
    """

    key_time: Any
    key_mask: Any
    query_blocks: tuple[QueryBlock, ...] | None


def query_block_bounds(
    length: int, num_query_blocks: int = _NUM_QUERY_BLOCKS
) -> list[tuple[int, int]]:
    """Returns start and end of every block of queries, in order.

    Args:
        length: L.
        num_query_blocks: How many, at most.
    """
    size = max(_LEAST_BLOCK, math.ceil(length / num_query_blocks))
    starts = range(0, max(length, 1), size)
    return [(start, min(start + size, length)) for start in starts]


def plan_full_attention(
    behavior_time: Any,
    *,
    utc_offset_hours: int,
    for_history: bool,
    num_query_blocks: int = _NUM_QUERY_BLOCKS,
) -> FullPlan:
    """Relates the times of all behaviours.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
        utc_offset_hours: The data set's time zone.
        for_history: Whether behaviours are queries too.
        num_query_blocks: Into how many blocks they are cut, at most;
            there is one where L is not known before the pass.

    Returns:
        `FullPlan`.
    """
    key_mask = behavior_time > 0
    blocks = None
    if for_history:
        bounds: list[tuple[int, int | None]] = [(0, None)]
        length = behavior_time.shape[1]
        if length is not None:
            bounds = [*query_block_bounds(length, num_query_blocks)]
        position = ops.arange(ops.shape(behavior_time)[1], dtype="int32")
        blocks = tuple(
            QueryBlock(
                start,
                end,
                temporal_features(
                    ops.expand_dims(behavior_time[:, start:end], 2),
                    ops.expand_dims(behavior_time[:, :end], 1),
                    utc_offset_hours,
                ),
                ops.logical_and(
                    ops.expand_dims(key_mask[:, :end], 1),
                    ops.expand_dims(position[:end], 0)
                    <= ops.expand_dims(position[start:end], 1),
                ),
            )
            for start, end in bounds
        )
    return FullPlan(behavior_time, key_mask, blocks)


@keras.saving.register_keras_serializable(package="sparsectr")
class FullAttention(keras.layers.Layer):
    """Multi-head attention to all behaviours, with RelTemporal (Eq. 16).

    The baseline that EvoAttention is measured against, with the same
    methods: a behaviour reads itself and every one before it, a candidate
    reads them all. There is no user key and no gate. W_K begins equal to W_Q
    here too.

    Behaviours ask in blocks, each of which reads the keys up to its end: of
    long histories, nearly half of all pairs are not computed, which the
    causal mask would throw away. Where L is not known before the pass, as in
    an exported graph, there is one block.

    Args:
        num_heads: H.
        temporal_bias: Whether RelTemporal is added.

    Call arguments:
        query: float `[B, Q, d]`, normalized rows of candidates.
        keys: float `[B, L, d]`.
        values: float `[B, L, d]`.
        features: Three float32 tensors `[B, 1, L]`.
        key_mask: bool `[B, L]`; True = keep.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Cost:
        O(L^2 d) for the history, at best 17 of 32 pairs.
    """

    def __init__(
        self, num_heads: int, temporal_bias: bool = True, **kwargs: Any
    ) -> None:
        # The temporal features stay float32; the rest is cast already.
        super().__init__(autocast=False, **kwargs)
        self.num_heads = num_heads
        self.temporal_bias = temporal_bias

    def build(
        self, query_shape: Any, *unused: Any, **unused_named: Any
    ) -> None:
        width = query_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )

        def dense(name: str, **arguments: Any) -> keras.layers.Dense:
            layer = keras.layers.Dense(
                width,
                use_bias=False,
                name=name,
                dtype=self.dtype_policy,
                **arguments,
            )
            layer.build((None, None, width))
            return layer

        self.query_projection = dense("query_projection")
        self.key_projection = dense(
            "key_projection",
            kernel_initializer=same_as(self.query_projection.kernel),
        )
        self.value_projection = dense("value_projection")
        self.output_projection = dense("output_projection")
        self.rel_temporal: RelTemporal | None = None
        if self.temporal_bias:
            self.rel_temporal = RelTemporal(self.num_heads, name="rel_temporal")
            self.rel_temporal.build()
        self.built = True

    def select(self, hidden: Any, user: Any, plan: FullPlan) -> tuple[Any, Any]:
        """Returns keys and values of all behaviours, float `[B, L, d]`."""
        del user, plan
        return self.key_projection(hidden), self.value_projection(hidden)

    def call(
        self,
        query: Any,
        keys: Any,
        values: Any,
        features: Features,
        key_mask: Any,
    ) -> Any:
        attended = self._attend(
            self.query_projection(query),
            keys,
            values,
            features,
            ops.expand_dims(key_mask, 1),
        )
        return self.output_projection(attended)

    def attend_history(
        self, hidden: Any, keys: Any, values: Any, plan: FullPlan
    ) -> Any:
        """Causal attention of the behaviours to themselves.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        if plan.query_blocks is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = self.query_projection(hidden)
        attended = [
            self._attend(
                query[:, block.start : block.end],
                keys[:, : block.end],
                values[:, : block.end],
                block.features,
                block.mask,
            )
            for block in plan.query_blocks
        ]
        return self.output_projection(ops.concatenate(attended, axis=1))

    def _attend(
        self,
        query: Any,
        keys: Any,
        values: Any,
        features: Features,
        mask: Any,
    ) -> Any:
        bias = None
        if self.rel_temporal is not None:
            bias = self.rel_temporal(*features)
        return attend_by_head(query, keys, values, bias, mask, self.num_heads)

    def compute_output_shape(
        self,
        query_shape: Any,
        keys_shape: Any = None,
        values_shape: Any = None,
        features_shape: Any = None,
        key_mask_shape: Any = None,
    ) -> Any:
        return query_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "temporal_bias": self.temporal_bias,
        }
