"""EvoAttention: global, transition and local attention, fused by a gate.

Axes: B batch, L history length, Q queries, H heads, d width, P chunks,
m transition behaviours a chunk, w local window, w_c that of candidates,
r registers, S = P + m P + w_c + 1 + r keys.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.attention.evo_plan import EvoPlan, HistoryPlan
from sparsectr.layers.attention.key_layout import (
    BRANCHES,
    KeyLayout,
    check_branches,
)
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.chunking.chunking import Chunking, Chunks
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.serialization import deserialized, serialized
from sparsectr.layers.sink.boundary_sinks import BoundarySinks
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.head_attention import attend
from sparsectr.ops.key_groups import in_columns, last_key, share_out
from sparsectr.ops.local_window import attend_window
from sparsectr.ops.places import (
    Places,
    places_of_newest,
    places_of_windows,
)
from sparsectr.ops.slice_axis import last_rows, slice_axis
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within


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
        branches: Which of `BRANCHES` there are, two at least. The gate fuses
            those, and keys of the others are nowhere: the paper's variants
            A2, A3 and A4 lack one each.
        num_newest: w_c, the newest behaviours that candidates read; w if not
            given. Each costs candidates a key and behaviours nothing.

    Call arguments, returns and errors are those of `Attention`; of the S keys
    P are global, m P transition, w_c + 1 + r local ones, the user's and the
    registers' the last. The user and the registers are of the local branch,
    the boundary sinks of the transition branch.

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
        branches: Sequence[str] = BRANCHES,
        num_newest: int | None = None,
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
        if num_newest is not None and num_newest < 1:
            raise ValueError(
                "`num_newest` must be at least 1. "
                f"Received: num_newest={num_newest}"
            )
        check_branches(branches, num_registers, boundary_sinks is not None)
        self.branches = self.traced_branches = tuple(branches)
        self.reads_user = "local" in branches
        self.num_local = num_local
        self.num_newest = num_local if num_newest is None else num_newest
        self.num_registers = num_registers
        self.chunking: Chunking = deserialized(chunking)
        self.boundary_sinks: BoundarySinks | None = deserialized(boundary_sinks)
        self.has_user = has_user

    def build(self, query_shape: Any, *unused: Any, **unnamed: Any) -> None:
        super().build(query_shape)
        width = query_shape[-1]
        if "global" in self.branches:
            # A bias would move all of a query's logits alike.
            self.key_aggregate = self._mlp(width, "key", ends_in_bias=False)
            self.value_aggregate = self._mlp(width, "value", ends_in_bias=True)
        self.gate = BranchGate(
            self.num_heads,
            len(self.branches),
            name="gate",
            dtype=self.dtype_policy,
        )
        self.gate.build([(None, None, width)] * len(self.branches))
        if self.boundary_sinks is not None:
            self.boundary_sinks.build((None, None, width))
        if self.num_registers:
            self.registers = self.add_weight(
                name="registers",
                shape=(self.num_registers, width),
                # As large as the normalized rows that they stand among.
                initializer=keras.initializers.RandomNormal(stddev=1.0),
            )

    def _mlp(
        self, width: int, name: str, *, ends_in_bias: bool
    ) -> list[keras.layers.Dense]:
        """Returns the two layers of Eq. 4 or 5."""
        return [
            self._dense(
                width,
                f"{name}_aggregate_hidden",
                use_bias=True,
                activation="relu",
            ),
            self._dense(
                width, f"{name}_aggregate_output", use_bias=ends_in_bias
            ),
        ]

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> EvoPlan:
        """Chooses the keys of every history. See `Attention`."""
        chunks: Chunks = self.chunking(history, rows)
        newest_index, newest_place = places_of_newest(
            history, ops.expand_dims(chunks.start[:, 0], 1), self.num_newest
        )  # [B, w_c]
        places, gap = (
            self._of_branches(chunks.place, chunks.transition_place),
            None,
        )
        if self.boundary_sinks is not None:
            place, gap = self.boundary_sinks.stand(history, chunks)
            places.append(place)
        if "local" in self.branches:
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
        last = self._of_branches(chunks.end - 1, chunks.transition_index)
        if self.boundary_sinks is not None:
            last.append(chunks.start)
        last_read = ops.concatenate(last, axis=1)
        num_selected = ops.shape(last_read)[1]
        selected = Places(*(x[:, :num_selected] for x in keys))
        mask = ops.logical_and(
            ops.expand_dims(selected.valid, 1),
            ops.expand_dims(last_read, 1) <= index,
        )  # [B, L, P + m P]
        features = self.encoding.relate(history, selected)
        if "local" not in self.branches:
            return HistoryPlan(features, mask, None, None)
        near = places_of_windows(
            history, ops.expand_dims(chunks.start[:, 0], 1), self.num_local
        )  # [B, L, w]
        return HistoryPlan(
            features=features,
            mask=mask,
            window_features=self.encoding.relate(
                history, near, self._num_unplaced
            ),
            window_mask=self._with_unplaced(near.valid),
        )

    def _of_branches(self, chunks: Any, transition: Any) -> list[Any]:
        """Returns those that are of a branch which is there."""
        found = {"global": chunks, "transition": transition}
        return [x for name, x in found.items() if name in self.branches]

    @property
    def _num_unplaced(self) -> int:
        """How many keys stand nowhere: the user's and the registers'."""
        return self.reads_user + self.num_registers

    def _with_unplaced(self, valid: Tensor) -> Tensor:
        """Adds to a mask `[..., S']` the keys that stand nowhere."""
        if not self._num_unplaced:
            return valid
        there = [self.has_user] + self.num_registers * [True]
        columns = ops.broadcast_to(
            ops.convert_to_tensor(there),
            (*ops.shape(valid)[:-1], self._num_unplaced),
        )
        return ops.concatenate([valid, columns], axis=-1)

    def encode(self, rows: Tensor, user: Tensor, plan: EvoPlan) -> Encoded:
        """Returns the S keys and values of every user. See `Attention`."""
        parts = []
        if "global" in self.branches:
            weights = ops.cast(plan.chunks.weights, rows.dtype)
            parts.append(ops.matmul(weights, rows))  # [B, P, d]
        if "transition" in self.branches:
            parts.append(gather_rows(rows, plan.chunks.transition_index))
            parts.extend(self._sink_rows(plan.gap, rows))
        if "local" in self.branches:
            parts.append(gather_rows(rows, plan.newest_index))
            parts.append(ops.expand_dims(user, 1))
            parts.extend(self._register_rows(user))
        selected = ops.concatenate(parts, axis=1)  # [B, S, d]
        keys = self.key_projection(selected)
        values = self.value_projection(selected)
        if "global" in self.branches:
            count = ops.shape(plan.chunks.start)[1]
            keys = _aggregate(keys, count, self.key_aggregate)
            values = _aggregate(values, count, self.value_aggregate)
        keys = self.encoding.turn(
            keys, plan.keys, num_unplaced=self._num_turned, is_query=False
        )
        return Encoded(keys, values)

    @property
    def _num_turned(self) -> int:
        """How many keys of no place stand beside an encoding that turns.

        The user's: a recipe refuses registers there.
        """
        return int(self.reads_user)

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
        if self._num_turned:
            keys = self.encoding.turn_unplaced(keys, self._num_turned, places)
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]
        encoded = Encoded(keys, values)
        outputs = [
            self._attend(
                projected, encoded, features, mask, name, within(trace, name)
            )
            for name in self.branches
        ]
        return self._output(self.gate(outputs, trace=trace), query, trace)

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: EvoPlan,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of the behaviours. See `Attention`.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        history = plan.history
        if history is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = self.encoding.turn(
            self.query_projection(rows), plan.behaviors, is_query=True
        )
        outputs = [
            self._attend(
                query,
                encoded,
                history.features,
                history.mask,
                name,
                within(trace, name),
            )
            for name in self.branches
            if name != "local"
        ]
        if "local" in self.branches:
            outputs.append(self._read_window(query, rows, encoded, plan, trace))
        return self._output(self.gate(outputs, trace=trace), rows, trace)

    def _read_window(
        self,
        query: Tensor,
        rows: Tensor,
        encoded: Encoded,
        plan: EvoPlan,
        trace: Trace | None,
    ) -> Tensor:
        """Returns what behaviours read of their window and the user."""
        history: Any = plan.history
        shared, shared_values, bias, mask = self.sink.with_own_key(
            last_rows(encoded.keys, self._num_unplaced),
            last_rows(encoded.values, self._num_unplaced),
            self.encoding.bias(history.window_features),
            history.window_mask,
        )
        own = None if trace is None else Trace()
        read = attend_window(
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
            own,
        )
        if trace is not None and own is not None:
            self._record(trace.within("local"), own, history.window_mask)
        return read

    def key_groups(self, branch: str, mask: Tensor) -> dict[str, Tensor]:
        """Tells the oldest chunk, the newest behaviour and others apart."""

        def columns(first: int, last: int | None = None) -> Tensor:
            return in_columns(mask, slice(first, last))

        if branch == "global":
            return share_out(mask, {"oldest": columns(0, 1)})
        if branch == "transition":
            size = self.chunking.num_transition
            behaviors = size * self.chunking.num_chunks
            groups = {
                "newest": last_key(columns(0, behaviors)),
                "oldest": columns(0, size),
            }
            if self.boundary_sinks is not None:
                groups["boundary_sinks"] = columns(behaviors)
            return share_out(mask, groups)
        user = mask.shape[-1] - self._num_unplaced
        groups = {"newest": last_key(columns(0, user))}
        if self.has_user:
            groups["user"] = columns(user, user + 1)
        if self.num_registers:
            groups["registers"] = columns(user + 1)
        return share_out(mask, groups)

    def relate(
        self, candidates: Places, keys: Places, num_keys: Tensor | int
    ) -> Features:
        """Relates candidates to the keys. See `Attention`."""
        del num_keys  # The numbers of both may not be known before the pass.
        return self.encoding.relate(candidates, keys, self._num_unplaced)

    @property
    def _layout(self) -> KeyLayout:
        boundaries = self.boundary_sinks is not None
        return KeyLayout(
            self.branches,
            self.chunking.num_chunks,
            self.chunking.num_transition + boundaries,
            self.num_newest + self._num_unplaced,
        )

    def _attend(
        self,
        query: Tensor,
        encoded: Encoded,
        features: Features,
        mask: Tensor,
        name: str,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention to some of the keys.

        Features are cut and not the biases, which have gradients: those of
        a part would be padded to the whole.
        """
        part = self._layout.part(name, ops.shape(encoded.keys)[1])
        return self._read(
            functools.partial(attend, most_keys=self._layout.most(name)),
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
            "branches": list(self.branches),
            "num_newest": self.num_newest,
        }


def _aggregate(
    rows: Tensor, num_chunks: Tensor | int, mlp: list[keras.layers.Dense]
) -> Tensor:
    """Completes Eqs. 4 and 5: the MLP on the means of the chunks."""
    summary = slice_axis(rows, 0, num_chunks)
    for layer in mlp:
        summary = layer(summary)
    return ops.concatenate([summary, slice_axis(rows, num_chunks)], axis=1)
