"""EvoAttention: global, transition and local attention, fused by a gate.

Axes: B batch, L history length, Q queries, H heads, d width, P chunks,
m transition behaviours a chunk, w local window, S = P + m P + w + 1 keys.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.chunking.chunking import Chunking, Chunks
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.serialization import deserialized, serialized
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.head_attention import attend
from sparsectr.ops.local_window import attend_window, shift, windows
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within


class HistoryPlan(NamedTuple):
    """What behaviours read of each other.

    Attributes:
        features: Of the encoding, of behaviours against chunks and transition
            behaviours, `[B, L, P + m P]` each.
        mask: bool `[B, L, P + m P]`.
        window_features: Those against their own window and the user,
            `[B, L, w + 1]` each.
        window_mask: bool `[B, L, w + 1]`.
    """

    features: Features
    mask: Tensor
    window_features: Features
    window_mask: Tensor


class EvoPlan(NamedTuple):
    """What all blocks of EvoAttention share.

    Attributes:
        chunks: The `Chunks` of the histories.
        behaviors: Places of the behaviours, `[B, L]`.
        newest_index: int32 `[B, w]`, indices of the newest behaviours.
        keys: Places of every key but the user's, which has none,
            `[B, S - 1]`.
        key_mask: bool `[B, S]`.
        history: `None` where only candidates will ask.
    """

    chunks: Chunks
    behaviors: Places
    newest_index: Tensor
    keys: Places
    key_mask: Tensor
    history: HistoryPlan | None


@keras.saving.register_keras_serializable(package="sparsectr")
class EvoAttention(Attention):
    """Evolutionary sparse self-attention (section 3.4, Eqs. 3 to 11, 16).

    A query reads chunk summaries (global), the last behaviours of every
    chunk (transition), and its neighbourhood with the user (local); a gate
    fuses the three.

    Args:
        num_heads: H.
        num_local: w.
        chunking: Where histories are cut, with P and m.
        encoding: What places do to the logits.
        sink: What a query may read beside its keys, in every branch.
        has_user: Whether the user has a key.

    Call arguments, returns and errors are those of `Attention`; of the S keys
    P are global, m P transition, w + 1 local ones, the user's the last.

    Masking:
        A query without a valid key in a branch gets 0 from that branch.

    Cost:
        O(L (P + m P) H d) for the history, O(C S H d) for candidates.

    Differs from the paper:
        Scale 1 / sqrt(d / H), not 1 / sqrt(d). A behaviour reads a chunk
        only from its last member on. Keys and values of a chunk are the
        masked mean of its members', then an MLP; since the mean of products
        with W_K is the product of the mean, only the S selected rows are
        ever projected for candidates. W_K begins equal to W_Q.
    """

    reads_user = True
    picks_rows = True

    def __init__(
        self,
        num_heads: int,
        num_local: int,
        chunking: Chunking,
        encoding: Encoding,
        sink: Sink | None = None,
        has_user: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, **kwargs)
        if num_local < 1:
            raise ValueError(
                "`num_local` must be at least 1. "
                f"Received: num_local={num_local}"
            )
        self.num_local = num_local
        self.chunking: Chunking = deserialized(chunking)
        self.has_user = has_user

    def build(self, query_shape: Any, *unused: Any, **unnamed: Any) -> None:
        super().build(query_shape)
        width = query_shape[-1]
        self.key_aggregate = [
            self._dense(
                width,
                "key_aggregate_hidden",
                use_bias=True,
                activation="relu",
            ),
            # A bias here would move all of a query's logits alike.
            self._dense(width, "key_aggregate_output"),
        ]
        self.value_aggregate = [
            self._dense(
                width,
                "value_aggregate_hidden",
                use_bias=True,
                activation="relu",
            ),
            self._dense(width, "value_aggregate_output", use_bias=True),
        ]
        self.gate = BranchGate(
            self.num_heads, name="gate", dtype=self.dtype_policy
        )
        self.gate.build([(None, None, width)] * 3)

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> EvoPlan:
        """Chooses the keys of every history. See `Attention`."""
        chunks: Chunks = self.chunking(history, rows)
        length = ops.shape(history.time)[1]
        first = chunks.start[:, :1]  # of the valid behaviours
        newest = length + ops.arange(-self.num_local, 0, dtype="int32")
        newest_mask = newest >= first  # [B, w]
        newest_index = ops.where(newest_mask, newest, 0)
        newest_place = Places(
            gather_rows(history.time, newest_index),
            length - newest_index,
            newest_mask,
            ops.zeros_like(newest_mask),
        )
        keys = Places(
            *(
                ops.concatenate(parts, axis=1)
                for parts in zip(
                    chunks.place,
                    chunks.transition_place,
                    newest_place,
                    strict=True,
                )
            )
        )  # [B, S - 1]
        user = ops.full_like(first, self.has_user, dtype="bool")
        return EvoPlan(
            chunks=chunks,
            behaviors=history,
            newest_index=newest_index,
            keys=keys,
            key_mask=ops.concatenate([keys.valid, user], axis=1),
            history=self._plan_history(history, chunks, keys)
            if for_history
            else None,
        )

    def _plan_history(
        self, history: Places, chunks: Chunks, keys: Places
    ) -> HistoryPlan:
        """Relates behaviours to the keys that they may read."""
        length = ops.shape(history.time)[1]
        index = ops.reshape(ops.arange(length, dtype="int32"), (1, -1, 1))
        # A chunk's key mixes its later members: it is read from its last on.
        last_read = ops.concatenate(
            [chunks.end - 1, chunks.transition_index], axis=1
        )
        num_selected = last_read.shape[1]
        selected = Places(*(x[:, :num_selected] for x in keys))
        mask = ops.logical_and(
            ops.expand_dims(selected.valid, 1),
            ops.expand_dims(last_read, 1) <= index,
        )  # [B, L, P + m P]
        valid = index >= ops.expand_dims(chunks.start[:, :1], 1)  # [B, L, 1]
        steps = range(self.num_local)
        near_valid = ops.concatenate(
            [shift(valid, n) for n in reversed(steps)], axis=2
        )
        near = Places(
            windows(history.time, self.num_local),
            ops.expand_dims(history.position, 2)
            + ops.arange(self.num_local - 1, -1, -1, dtype="int32"),
            near_valid,
            ops.zeros_like(near_valid),
        )  # [B, L, w]
        user = ops.full_like(valid, self.has_user)
        return HistoryPlan(
            features=self.encoding.relate(history, selected),
            mask=mask,
            window_features=self.encoding.relate(history, near, 1),
            window_mask=ops.concatenate([near.valid, user], axis=2),
        )

    def encode(self, rows: Tensor, user: Tensor, plan: EvoPlan) -> Encoded:
        """Returns the S keys and values of every user. See `Attention`."""
        means = ops.matmul(
            ops.cast(plan.chunks.weights, rows.dtype), rows
        )  # [B, P, d]
        selected = ops.concatenate(
            [
                means,
                gather_rows(rows, plan.chunks.transition_index),
                gather_rows(rows, plan.newest_index),
                ops.expand_dims(user, 1),
            ],
            axis=1,
        )  # [B, S, d]
        keys = self._aggregate(
            self.key_projection(selected), self.key_aggregate
        )
        return Encoded(
            self.encoding.turn(keys, plan.keys, num_unplaced=1, is_query=False),
            self._aggregate(
                self.value_projection(selected), self.value_aggregate
            ),
        )

    def _aggregate(self, rows: Tensor, mlp: list[keras.layers.Dense]) -> Tensor:
        """Completes Eqs. 4 and 5: the MLP on the means of the chunks."""
        num_chunks = self.chunking.num_chunks
        summary = rows[:, :num_chunks]
        for layer in mlp:
            summary = layer(summary)
        return ops.concatenate([summary, rows[:, num_chunks:]], axis=1)

    def call(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        key_mask: Tensor,
        places: Places,
        trace: Trace | None = None,
    ) -> Tensor:
        query = self.encoding.turn(
            self.query_projection(query), places, is_query=True
        )
        keys = self.encoding.turn_unplaced(keys, 1, places)
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]
        encoded = Encoded(keys, values)
        outputs = [
            self._attend(query, encoded, features, mask, part, within(trace, n))
            for n, part in self._branches().items()
        ]
        return self.output_projection(self.gate(outputs, trace=trace))

    def read_history(
        self, rows: Tensor, encoded: Encoded, plan: EvoPlan
    ) -> Tensor:
        """Attention of the behaviours.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        history = plan.history
        if history is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = self.encoding.turn(
            self.query_projection(rows), plan.behaviors, is_query=True
        )
        branches = self._branches()
        outputs = [
            self._attend(
                query, encoded, history.features, history.mask, branches[name]
            )
            for name in ("global", "transition")
        ]
        outputs.append(
            attend_window(
                query,
                self.encoding.turn(
                    self.key_projection(rows), plan.behaviors, is_query=False
                ),
                self.value_projection(rows),
                self.encoding.turn_unplaced(
                    encoded.keys[:, -1:], 1, plan.behaviors
                ),
                encoded.values[:, -1:],
                self.encoding.bias(history.window_features),
                history.window_mask,
                self.num_heads,
                self.sink.numerators,
            )
        )
        return self.output_projection(self.gate(outputs))

    def _branches(self) -> dict[str, slice]:
        """Returns which keys each branch reads."""
        chunks = self.chunking.num_chunks
        local = chunks * (1 + self.chunking.num_transition)
        return {
            "global": slice(0, chunks),
            "transition": slice(chunks, local),
            "local": slice(local, None),
        }

    def _attend(
        self,
        query: Tensor,
        encoded: Encoded,
        features: Features,
        mask: Tensor,
        part: slice,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention to some of the keys.

        Features are cut and not the biases, which have gradients: those of
        a part would be padded to the whole.
        """
        return attend(
            query,
            encoded.keys[:, part],
            encoded.values[:, part],
            self.encoding.bias(tuple(x[..., part] for x in features)),
            mask[..., part],
            self.num_heads,
            self.sink.numerators,
            trace,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_local": self.num_local,
            "chunking": serialized(self.chunking),
            "has_user": self.has_user,
        }
