"""EvoAttention: global, transition and local attention, fused by a gate.

Axes: B batch, L history length, Q queries, H heads, d width, P chunks,
m transition behaviours a chunk, w local window, r registers,
S = P + m P + w + 1 + r keys.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.chunking.chunking import Chunking, Chunks
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.serialization import deserialized, serialized
from sparsectr.layers.sink.boundary_sinks import BoundarySinks
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.head_attention import attend
from sparsectr.ops.local_window import attend_window, shift, windows
from sparsectr.ops.places import Places
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within


class HistoryPlan(NamedTuple):
    """What behaviours read of each other.

    Attributes:
        features: Of the encoding, of behaviours against chunks and transition
            behaviours, `[B, L, P + m P]` each.
        mask: bool `[B, L, P + m P]`.
        window_features: Those against their own window, the user and the
            registers, `[B, L, w + 1 + r]` each.
        window_mask: bool `[B, L, w + 1 + r]`.
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
        keys: Places of every key but the user's and the registers', which
            have none, `[B, S - 1 - r]`.
        key_mask: bool `[B, S]`.
        gap: int32 `[B, P]`, rows of the boundary sinks; `None` without.
        history: `None` where only candidates will ask.
    """

    chunks: Chunks
    behaviors: Places
    newest_index: Tensor
    keys: Places
    key_mask: Tensor
    gap: Tensor | None
    history: HistoryPlan | None


@keras.saving.register_keras_serializable(package="sparsectr")
class EvoAttention(Attention):
    """Evolutionary sparse self-attention (section 3.4, Eqs. 3 to 11, 16).

    A query reads chunk summaries (global), the last behaviours of every
    chunk (transition), and its neighbourhood with the user (local); a gate
    fuses the three. Registers are learned rows that the local branch reads
    beside the user: tokens of no user and no time (T. Darcet et al., "Vision
    transformers need registers", 2023).

    Args:
        num_heads: H.
        num_local: w.
        chunking: Where histories are cut, with P and m.
        encoding: What places do to the logits.
        sink: What a query may read beside its keys, in every branch.
        has_user: Whether the user has a key.
        output_gate: What closes heads behind the gate of the branches.
        num_registers: r.
        boundary_sinks: P keys more in the transition branch, behind those of
            m: each read from the first behaviour of its chunk on.

    Call arguments, returns and errors are those of `Attention`; of the S keys
    P are global, m P transition, w + 1 + r local ones, the user's and the
    registers' the last.

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

    Differs from Darcet et al.:
        Registers are of the block, stand where its normalized rows do, and
        read nothing themselves, so that they are the same for all users.
        Their keys and values are in the user state all the same, behind the
        user's: what scores has one kind of key.
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
        output_gate: OutputGate | None = None,
        num_registers: int = 0,
        boundary_sinks: BoundarySinks | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, output_gate, **kwargs)
        if num_local < 1:
            raise ValueError(
                "`num_local` must be at least 1. "
                f"Received: num_local={num_local}"
            )
        if num_registers < 0:
            raise ValueError(
                "`num_registers` must be at least 0. "
                f"Received: num_registers={num_registers}"
            )
        self.num_local = num_local
        self.num_registers = num_registers
        self.chunking: Chunking = deserialized(chunking)
        self.boundary_sinks: BoundarySinks | None = deserialized(boundary_sinks)
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
        if self.boundary_sinks is not None:
            self.boundary_sinks.build((None, None, width))
        if self.num_registers:
            self.registers = self.add_weight(
                name="registers",
                shape=(self.num_registers, width),
                # As large as the normalized rows that they stand among.
                initializer=keras.initializers.RandomNormal(stddev=1.0),
            )

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
        places, gap = [chunks.place, chunks.transition_place], None
        if self.boundary_sinks is not None:
            place, gap = self.boundary_sinks.stand(history, chunks)
            places.append(place)
        places.append(newest_place)
        keys = Places(
            *(ops.concatenate(x, axis=1) for x in zip(*places, strict=True))
        )  # [B, S - 1 - r]
        return EvoPlan(
            chunks=chunks,
            behaviors=history,
            newest_index=newest_index,
            keys=keys,
            key_mask=self._with_unplaced(keys.valid),
            gap=gap,
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
        last = [chunks.end - 1, chunks.transition_index]
        if self.boundary_sinks is not None:
            last.append(chunks.start)
        last_read = ops.concatenate(last, axis=1)
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
        return HistoryPlan(
            features=self.encoding.relate(history, selected),
            mask=mask,
            window_features=self.encoding.relate(
                history, near, self._num_unplaced
            ),
            window_mask=self._with_unplaced(near.valid),
        )

    @property
    def _num_unplaced(self) -> int:
        """How many keys stand nowhere: the user's and the registers'."""
        return 1 + self.num_registers

    def _with_unplaced(self, valid: Tensor) -> Tensor:
        """Adds to a mask `[..., S']` the keys that stand nowhere."""
        there = [self.has_user] + self.num_registers * [True]
        columns = ops.broadcast_to(
            ops.convert_to_tensor(there),
            (*ops.shape(valid)[:-1], self._num_unplaced),
        )
        return ops.concatenate([valid, columns], axis=-1)

    def encode(self, rows: Tensor, user: Tensor, plan: EvoPlan) -> Encoded:
        """Returns the S keys and values of every user. See `Attention`."""
        means = ops.matmul(
            ops.cast(plan.chunks.weights, rows.dtype), rows
        )  # [B, P, d]
        selected = ops.concatenate(
            [
                means,
                gather_rows(rows, plan.chunks.transition_index),
                *self._sink_rows(plan.gap, rows),
                gather_rows(rows, plan.newest_index),
                ops.expand_dims(user, 1),
                *self._register_rows(user),
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

    def _sink_rows(self, gap: Tensor | None, rows: Tensor) -> list[Tensor]:
        """Returns those of the chunks' boundaries, if there are any."""
        if self.boundary_sinks is None:
            return []
        return [ops.cast(self.boundary_sinks(gap), rows.dtype)]  # [B, P, d]

    def _register_rows(self, user: Tensor) -> list[Tensor]:
        """Returns the registers of every user `[B, r, d]`, if there are any."""
        if not self.num_registers:
            return []
        batch, width = ops.shape(user)
        rows = ops.cast(ops.expand_dims(self.registers, 0), user.dtype)
        return [ops.broadcast_to(rows, (batch, self.num_registers, width))]

    def _aggregate(self, rows: Tensor, mlp: list[keras.layers.Dense]) -> Tensor:
        """Completes Eqs. 4 and 5: the MLP on the means of the chunks."""
        num_chunks = self.chunking.num_chunks
        summary = slice_axis(rows, 0, num_chunks)
        for layer in mlp:
            summary = layer(summary)
        return ops.concatenate([summary, slice_axis(rows, num_chunks)], axis=1)

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
        projected = self.encoding.turn(
            self.query_projection(query), places, is_query=True
        )
        keys = self.encoding.turn_unplaced(keys, 1, places)
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]
        encoded = Encoded(keys, values)
        outputs = [
            self._attend(
                projected, encoded, features, mask, part, within(trace, n)
            )
            for n, part in self._branches().items()
        ]
        return self._output(self.gate(outputs, trace=trace), query, trace)

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
        shared, shared_values, bias, mask = self.sink.with_own_key(
            encoded.keys[:, -self._num_unplaced :],
            encoded.values[:, -self._num_unplaced :],
            self.encoding.bias(history.window_features),
            history.window_mask,
        )
        outputs.append(
            attend_window(
                query,
                self.encoding.turn(
                    self.key_projection(rows), plan.behaviors, is_query=False
                ),
                self.value_projection(rows),
                [
                    self.encoding.turn_unplaced(
                        shared[:, place : place + 1], 1, plan.behaviors
                    )
                    for place in range(shared.shape[1])
                ],
                shared_values,
                bias,
                mask,
                self.num_heads,
                self.sink.numerators,
            )
        )
        return self._output(self.gate(outputs), rows)

    def _branches(self) -> dict[str, slice]:
        """Returns which keys each branch reads."""
        chunks = self.chunking.num_chunks
        local = chunks * (1 + self.chunking.num_transition)
        local += chunks * (self.boundary_sinks is not None)
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
        return self._read(
            attend,
            query,
            slice_axis(encoded.keys, part.start, part.stop),
            slice_axis(encoded.values, part.start, part.stop),
            self.encoding.bias(tuple(x[..., part] for x in features)),
            mask[..., part],
            trace,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_local": self.num_local,
            "chunking": serialized(self.chunking),
            "has_user": self.has_user,
            "num_registers": self.num_registers,
            "boundary_sinks": None
            if self.boundary_sinks is None
            else serialized(self.boundary_sinks),
        }
