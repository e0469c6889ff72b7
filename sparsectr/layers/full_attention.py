"""Full attention: every behaviour a key, the paper's variant A1.

Axes: B batch, L history length, Q queries, H heads, d width.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.evo_attention import Features
from sparsectr.layers.rel_temporal import RelTemporal
from sparsectr.ops.head_attention import attend_all
from sparsectr.ops.same_as import same_as
from sparsectr.ops.temporal_features import temporal_features


class FullPlan(NamedTuple):
    """All of full attention that depends on times alone.

    Attributes:
        key_time: int64 `[B, L]`, Unix seconds.
        key_mask: bool `[B, L]`.
        history_features: float32 `[B, L, L]` three times, or `None` where
            only candidates will ask.
        history_mask: bool `[B, L, L]`, or `None` likewise.
    """

    key_time: Any
    key_mask: Any
    history_features: Features | None
    history_mask: Any


def plan_full_attention(
    behavior_time: Any, *, utc_offset_hours: int, for_history: bool
) -> FullPlan:
    """Relates the times of all behaviours.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
        utc_offset_hours: The data set's time zone.
        for_history: Whether behaviours are queries too.

    Returns:
        `FullPlan`.
    """
    key_mask = behavior_time > 0
    features = mask = None
    if for_history:
        position = ops.arange(ops.shape(behavior_time)[1], dtype="int32")
        causal = ops.expand_dims(position, 0) <= ops.expand_dims(position, 1)
        mask = ops.logical_and(ops.expand_dims(key_mask, 1), causal)
        features = temporal_features(
            ops.expand_dims(behavior_time, 2),
            ops.expand_dims(behavior_time, 1),
            utc_offset_hours,
        )
    return FullPlan(
        key_time=behavior_time,
        key_mask=key_mask,
        history_features=features,
        history_mask=mask,
    )


@keras.saving.register_keras_serializable(package="sparsectr")
class FullAttention(keras.layers.Layer):
    """Multi-head attention to all behaviours, with RelTemporal (Eq. 16).

    The baseline that EvoAttention is measured against, with the same
    methods: a behaviour reads itself and every one before it, a candidate
    reads them all. There is no user key and no gate. W_K begins equal to W_Q
    here too.

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
        O(L^2 d) for the history.
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
        return self._attend(
            query, keys, values, features, ops.expand_dims(key_mask, 1)
        )

    def attend_history(
        self, hidden: Any, keys: Any, values: Any, plan: FullPlan
    ) -> Any:
        """Causal attention of the behaviours to themselves."""
        return self._attend(
            hidden, keys, values, plan.history_features, plan.history_mask
        )

    def _attend(
        self,
        query: Any,
        keys: Any,
        values: Any,
        features: Features | None,
        mask: Any,
    ) -> Any:
        bias = None
        if self.rel_temporal is not None and features is not None:
            bias = self.rel_temporal(*features)
        outputs = attend_all(
            self.query_projection(query),
            keys,
            values,
            bias,
            mask,
            self.num_heads,
        )
        return self.output_projection(outputs)

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
