"""EvoAttention: global, transition and local attention, fused by a gate.

Axes: B batch, L history length, Q queries, H heads, d width, P chunks,
m transition behaviours a chunk, w local window, S = P + m P + w + 1 keys.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.chunking.time_chunking import TimeChunks
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.head_attention import attend
from sparsectr.ops.local_window import attend_window, shift, windows
from sparsectr.ops.same_as import same_as
from sparsectr.ops.temporal_features import temporal_features

Features = tuple[Any, Any, Any]
"""The three quantities of RelTemporal for some queries and keys."""


class EvoPlan(NamedTuple):
    """All of EvoAttention that depends on times alone.

    Computed once a forward pass and shared by every block.

    Attributes:
        chunks: The `TimeChunks` of the histories.
        newest_index: int32 `[B, w]`, positions of the newest behaviours.
        key_time: int64 `[B, S - 1]`, Unix seconds, of every key but the
            user's, which has none.
        key_mask: bool `[B, S]`.
        history_features: Those of behaviours against chunks and transition
            behaviours, float32 `[B, L, P + m P]`; `None` where only
            candidates will ask.
        history_mask: bool `[B, L, P + m P]`, or `None` likewise.
        window_features: Those of behaviours against their own window and
            the user, float32 `[B, L, w + 1]`, or `None` likewise.
        window_mask: bool `[B, L, w + 1]`, or `None` likewise.
    """

    chunks: TimeChunks
    newest_index: Any
    key_time: Any
    key_mask: Any
    history_features: Features | None
    history_mask: Any
    window_features: Features | None
    window_mask: Any


def plan_evo_attention(
    behavior_time: Any,
    chunks: TimeChunks,
    *,
    num_local: int,
    has_user: bool,
    utc_offset_hours: int,
    for_history: bool,
) -> EvoPlan:
    """Chooses the keys of every history and relates their times.

    Args:
        behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.
        chunks: What `TimeChunking` returns for them.
        num_local: w.
        has_user: Whether there is a user key.
        utc_offset_hours: The data set's time zone.
        for_history: Whether behaviours are queries too.

    Returns:
        `EvoPlan`.
    """
    length = ops.shape(behavior_time)[1]
    first = chunks.start[:, :1]  # of the valid behaviours
    newest = length + ops.arange(-num_local, 0, dtype="int32")
    newest_mask = newest >= first  # [B, w]
    newest_index = ops.where(newest_mask, newest, 0)
    chunk_mask = chunks.end > chunks.start
    key_mask = ops.concatenate(
        [
            chunk_mask,
            chunks.transition_mask,
            newest_mask,
            ops.full_like(first, has_user, dtype="bool"),
        ],
        axis=1,
    )
    selected_time = ops.concatenate(
        [chunks.chunk_time, chunks.transition_time], axis=1
    )
    newest_time = gather_rows(behavior_time, newest_index)
    history_features = history_mask = window_features = window_mask = None
    if for_history:
        position = ops.reshape(ops.arange(length, dtype="int32"), (1, -1, 1))
        # A chunk's key mixes its later members: it is read from its last on.
        last_read = ops.concatenate(
            [chunks.end - 1, chunks.transition_index], axis=1
        )
        history_mask = ops.logical_and(
            ops.expand_dims(key_mask[:, : last_read.shape[1]], 1),
            ops.expand_dims(last_read, 1) <= position,
        )  # [B, L, P + m P]
        query_time = ops.expand_dims(behavior_time, 2)
        history_features = temporal_features(
            query_time, ops.expand_dims(selected_time, 1), utc_offset_hours
        )
        window_features = _without_time(
            temporal_features(
                query_time, windows(behavior_time, num_local), utc_offset_hours
            )
        )
        valid = position >= ops.expand_dims(first, 1)  # [B, L, 1]
        near = [shift(valid, steps) for steps in reversed(range(num_local))]
        window_mask = ops.concatenate(
            [*near, ops.full_like(valid, has_user)], axis=2
        )
    return EvoPlan(
        chunks=chunks,
        newest_index=newest_index,
        key_time=ops.concatenate([selected_time, newest_time], axis=1),
        key_mask=key_mask,
        history_features=history_features,
        history_mask=history_mask,
        window_features=window_features,
        window_mask=window_mask,
    )


def candidate_features(
    request_time: Any, key_time: Any, num_keys: int, utc_offset_hours: int
) -> Features:
    """The temporal features of a request's candidates, one row for all.

    Args:
        request_time: int64 `[B]`, Unix seconds.
        key_time: int64 `[B, T]`, Unix seconds.
        num_keys: S; the S - T last keys have no time, and bias 0.
        utc_offset_hours: The data set's time zone.

    Returns:
        Three float32 tensors `[B, 1, S]`.
    """
    features = temporal_features(
        ops.reshape(request_time, (-1, 1, 1)),
        ops.expand_dims(key_time, 1),
        utc_offset_hours,
    )
    if key_time.shape[1] == num_keys:
        return features
    return _without_time(features)


def _without_time(features: Features) -> Features:
    """Appends the user key, which has no time and so bias 0."""
    log_gap, hour_wave, weekend_differs = (
        ops.pad(feature, [(0, 0), (0, 0), (0, 1)]) for feature in features
    )
    return log_gap, hour_wave, weekend_differs


@keras.saving.register_keras_serializable(package="sparsectr")
class EvoAttention(keras.layers.Layer):
    """Evolutionary sparse self-attention (section 3.4, Eqs. 3 to 11, 16).

    A query reads chunk summaries (global), the last behaviours of every
    chunk (transition), and its neighbourhood with the user (local); a gate
    fuses the three. Keys and values never read a candidate, so the few that
    candidates ask for are all that scoring needs of a user: `select` returns
    them, `call` reads them, and `attend_history` is the same for behaviours.

    Args:
        num_heads: H.
        num_chunks: P.
        num_transition: m.
        temporal_bias: Whether RelTemporal is added (variant B1 if not).

    Call arguments:
        query: float `[B, Q, d]`, normalized rows of candidates.
        keys: float `[B, S, d]`: P global, m P transition, w + 1 local ones.
        values: float `[B, S, d]`, in the same order.
        features: What `candidate_features` returns.
        key_mask: bool `[B, S]`; True = keep.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Masking:
        A query without a valid key in a branch gets 0 from that branch.

    Cost:
        O(L (P + m P) H d) for the history, O(C S H d) for candidates.

    Differs from the paper:
        Scale 1 / sqrt(d / H), not 1 / sqrt(d). A behaviour reads a chunk
        only from its last member on. Keys and values of a chunk are the
        masked mean of its members', then an MLP; since the mean of products
        with W_K is the product of the mean, only the S selected rows are
        ever projected for candidates. W_K begins equal to W_Q, so that a
        query is drawn to what is like it from the first step on.
    """

    def __init__(
        self,
        num_heads: int,
        num_chunks: int,
        num_transition: int,
        temporal_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        # The temporal features stay float32; the rest is cast already.
        super().__init__(autocast=False, **kwargs)
        self.num_heads = num_heads
        self.num_chunks = num_chunks
        self.num_transition = num_transition
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
        rows = (None, None, width)

        def dense(name: str, **arguments: Any) -> keras.layers.Dense:
            layer = keras.layers.Dense(
                width, name=name, dtype=self.dtype_policy, **arguments
            )
            layer.build(rows)
            return layer

        self.query_projection = dense("query_projection", use_bias=False)
        self.key_projection = dense(
            "key_projection",
            use_bias=False,
            kernel_initializer=same_as(self.query_projection.kernel),
        )
        self.value_projection = dense("value_projection", use_bias=False)
        self.output_projection = dense("output_projection", use_bias=False)
        self.key_aggregate = [
            dense("key_aggregate_hidden", activation="relu"),
            # A bias here would move all of a query's logits alike.
            dense("key_aggregate_output", use_bias=False),
        ]
        self.value_aggregate = [
            dense("value_aggregate_hidden", activation="relu"),
            dense("value_aggregate_output"),
        ]
        self.gate = BranchGate(
            self.num_heads, name="gate", dtype=self.dtype_policy
        )
        self.gate.build([rows] * 3)
        self.rel_temporal: RelTemporal | None = None
        if self.temporal_bias:
            self.rel_temporal = RelTemporal(self.num_heads, name="rel_temporal")
            self.rel_temporal.build()
        self.built = True

    def select(self, hidden: Any, user: Any, plan: EvoPlan) -> tuple[Any, Any]:
        """Returns the keys and values that candidates will read.

        Args:
            hidden: float `[B, L, d]`, normalized rows of behaviours.
            user: float `[B, d]`, the normalized u_c.
            plan: What `plan_evo_attention` returns.

        Returns:
            Keys and values, float `[B, S, d]` each.
        """
        means = ops.matmul(
            ops.cast(plan.chunks.chunk_weights, hidden.dtype), hidden
        )  # [B, P, d]
        rows = ops.concatenate(
            [
                means,
                gather_rows(hidden, plan.chunks.transition_index),
                gather_rows(hidden, plan.newest_index),
                ops.expand_dims(user, 1),
            ],
            axis=1,
        )  # [B, S, d]
        return (
            self._aggregate(self.key_projection(rows), self.key_aggregate),
            self._aggregate(self.value_projection(rows), self.value_aggregate),
        )

    def _aggregate(self, rows: Any, mlp: list[Any]) -> Any:
        """Completes Eqs. 4 and 5: the MLP on the means of the chunks."""
        summary = rows[:, : self.num_chunks]
        for layer in mlp:
            summary = layer(summary)
        return ops.concatenate([summary, rows[:, self.num_chunks :]], axis=1)

    def call(
        self,
        query: Any,
        keys: Any,
        values: Any,
        features: Features,
        key_mask: Any,
    ) -> Any:
        query = self.query_projection(query)
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]

        def branch(start: int, end: int | None) -> Any:
            return attend(
                query,
                keys[:, start:end],
                values[:, start:end],
                self._bias(features, start, end),
                mask[..., start:end],
                self.num_heads,
            )

        transition, local = self._branch_starts()
        outputs = [
            branch(0, transition),
            branch(transition, local),
            branch(local, None),
        ]
        return self.output_projection(self.gate(outputs))

    def attend_history(
        self, hidden: Any, keys: Any, values: Any, plan: EvoPlan
    ) -> Any:
        """Attention of behaviours, each to what lies at or before itself.

        Args:
            hidden: float `[B, L, d]`, normalized rows of behaviours.
            keys: float `[B, S, d]`, from `select`.
            values: float `[B, S, d]`, from `select`.
            plan: One that was made for the history.

        Returns:
            float `[B, L, d]`.
        """
        query = self.query_projection(hidden)
        transition, local = self._branch_starts()
        outputs = [
            attend(
                query,
                keys[:, start:end],
                values[:, start:end],
                self._bias(plan.history_features, start, end),
                plan.history_mask[..., start:end],
                self.num_heads,
            )
            for start, end in ((0, transition), (transition, local))
        ]
        outputs.append(
            attend_window(
                query,
                self.key_projection(hidden),
                self.value_projection(hidden),
                keys[:, -1:],
                values[:, -1:],
                self._bias(plan.window_features),
                plan.window_mask,
                self.num_heads,
            )
        )
        return self.output_projection(self.gate(outputs))

    def _branch_starts(self) -> tuple[int, int]:
        """Returns where transition and local keys begin."""
        return self.num_chunks, self.num_chunks * (1 + self.num_transition)

    def _bias(
        self, features: Features | None, start: int = 0, end: int | None = None
    ) -> Any:
        """Returns the biases of some keys, `[B, Q, H, end - start]`.

        Features are cut and not the biases, which have gradients: those of
        a part would be padded to the whole.
        """
        if self.rel_temporal is None or features is None:
            return None
        return self.rel_temporal(
            *(feature[..., start:end] for feature in features)
        )

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
            "num_chunks": self.num_chunks,
            "num_transition": self.num_transition,
            "temporal_bias": self.temporal_bias,
        }
