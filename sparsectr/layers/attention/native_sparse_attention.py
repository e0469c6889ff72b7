"""Native sparse attention: compressed blocks, selected blocks, a window.

Axes: B batch, L history length, Q queries, H heads, d width, P compressed
blocks, w window, n blocks to select from, k selected ones, S = P + L + w keys.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.block_compression import (
    BlockCompression,
    places_of_blocks,
)
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.compressed_blocks import num_compressed_blocks
from sparsectr.ops.head_attention import attend
from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import (
    flat_groups,
    full_places,
    joined_blocks,
    newest_rows,
    row_blocks,
    window_mask,
    with_previous,
)
from sparsectr.ops.same_as import same_as
from sparsectr.ops.selected_attention import (
    Asked,
    attend_gathered,
    attend_masked,
)
from sparsectr.ops.selected_blocks import (
    BlockSizes,
    block_importance,
    select_blocks,
)
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within

_LEAST_BLOCK = 16
"""Of queries that read a window together."""


class HistoryPlan(NamedTuple):
    """What behaviors read of each other.

    Attributes:
        features: Against compressed blocks, `[B, L, P]` each.
        mask: bool `[B, L, P]`.
        window_features: Blocks of c rows against themselves and those before,
            `[B L / c, c, 2 c]` each.
        window_mask: bool `[B L / c, c, 2 c]`.
        pair_features: All pairs, `[B, L, L]` each; none where selected rows
            are gathered.
    """

    features: Features
    mask: Tensor
    window_features: Features
    window_mask: Tensor
    pair_features: Features


class NSAPlan(NamedTuple):
    """What all blocks of native sparse attention share.

    Attributes:
        places: Places `[B, L]` of the behaviors.
        keys: Places `[B, S]` of compressed blocks, behaviors and window.
        key_mask: bool `[B, S]`.
        history: What behaviors read; `None` where only candidates will ask.
    """

    places: Places
    keys: Places
    key_mask: Tensor
    history: HistoryPlan | None


@keras.saving.register_keras_serializable(package="sparsectr")
class NativeSparseAttention(Attention):
    """Attention of three branches with a gate each (Yuan et al., 2025).

        o = sum_b sigmoid(x W_g)[h, b] o_b[h]

    over a compressed branch of one key a block, a selected branch of all
    behaviors in the blocks whose compressed keys got the highest
    probabilities, and a window. Keys and values are a branch's own. There is
    no user key.

    Blocks are cut by position from the newest behavior back, so that padding
    moves none. A behavior reads the compressed blocks that end at or before
    it, and of selected blocks what is at or before it. A candidate reads as
    if it stood behind the newest behavior, whose block is its own.

    Args:
        num_heads: H.
        encoding: What places add to the logits; a compressed block has its
            mean time and the position of its newest behavior.
        sink: What a query may read beside its keys, in each branch.
        sizes: Rows of a compressed block, how far apart those begin, and rows
            of a block to select.
        num_selected: Blocks that a query reads.
        num_forced: How many of its own block, the one before and the first
            are among them whatever their importance.
        num_window: w.
        longest_history: Up to which compressed blocks are made.

    Call arguments and returns are those of `Attention`.

    Raises:
        ValueError: If a size is below 1, or more are forced than selected.

    Masking:
        A query gets 0 from a branch that has nothing for it, as the compressed
        one has before the first block has ended.

    Cost:
        O(L (P + size num_selected + w) d), and O(L P n) for the importance.
        Where the selected rows are a quarter of the longest history or more,
        a mask of all pairs takes the place of the gather: O(L^2 d), and
        `[L, L]` tensors. So it is with the published sizes at 1024, of which
        they select 16 * 64, every one.

    Differs from the paper:
        All heads select the same blocks, as those of one group do in it. Where
        compressed blocks are longer than selected ones, those within are
        equally important, and the newest goes first. For the compression see
        `BlockCompression`. Its blocks are counted from the first token.
    """

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        sizes: tuple[int, int, int] = (64, 64, 16),
        num_selected: int = 2,
        num_forced: int = 1,
        num_window: int = 5,
        longest_history: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, **kwargs)
        for name, value in (
            ("sizes", min(sizes)),
            ("num_selected", num_selected),
            ("num_window", num_window),
            ("longest_history", longest_history),
        ):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        if not 0 <= num_forced <= min(num_selected, 3):
            raise ValueError(
                "`num_forced` must be from 0 to 3 and to num_selected="
                f"{num_selected}. Received: num_forced={num_forced}"
            )
        self.sizes = BlockSizes(*sizes)
        self.num_selected = num_selected
        self.num_forced = num_forced
        self.num_window = num_window
        self.longest_history = longest_history
        self.num_blocks = num_compressed_blocks(longest_history, *sizes[:2])

    def build(self, query_shape: Any, *unused: Any, **unnamed: Any) -> None:
        super().build(query_shape)
        width = query_shape[-1]
        self.key_compression, self.value_compression = (
            BlockCompression(
                self.num_blocks,
                *self.sizes[:2],
                name=name,
                dtype=self.dtype_policy,
            )
            for name in ("key_compression", "value_compression")
        )
        self.key_compression.build(query_shape)
        self.value_compression.build(query_shape)
        self.window_key_projection = self._dense(
            width,
            "window_key_projection",
            kernel_initializer=same_as(self.query_projection.kernel),
        )
        self.window_value_projection = self._dense(
            width, "window_value_projection"
        )
        self.branch_gates = keras.layers.Dense(
            3 * self.num_heads,
            activation="sigmoid",
            name="branch_gates",
            dtype=self.dtype_policy,
        )
        self.branch_gates.build(query_shape)

    @property
    def _reads_by_mask(self) -> bool:
        """Whether selected rows are so many that a gather does not pay."""
        num_rows = self.num_selected * self.sizes.size
        return 4 * num_rows >= self.longest_history

    @property
    def _window_block(self) -> int:
        return max(self.num_window, _LEAST_BLOCK)

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> NSAPlan:
        """Places the keys of every history. See `Attention`."""
        del rows
        history = full_places(history)
        compressed = places_of_blocks(history, self.num_blocks, *self.sizes[:2])
        window = Places(*(newest_rows(x, self.num_window) for x in history))
        keys = Places(
            *(
                ops.concatenate(parts, axis=1)
                for parts in zip(compressed, history, window, strict=True)
            )
        )
        return NSAPlan(
            history,
            keys,
            keys.valid,
            self._plan_history(history, compressed) if for_history else None,
        )

    def _plan_history(self, history: Places, compressed: Places) -> HistoryPlan:
        has_ended = ops.expand_dims(compressed.position, 1) >= ops.expand_dims(
            history.position, 2
        )
        blocks = [row_blocks(x, self._window_block) for x in history]
        queries = Places(*map(flat_groups, blocks))
        near = Places(*(flat_groups(with_previous(x)) for x in blocks))
        pairs: Features = ()
        if self._reads_by_mask:
            pairs = self.encoding.relate(history, history)
        return HistoryPlan(
            self.encoding.relate(history, compressed),
            ops.logical_and(has_ended, ops.expand_dims(compressed.valid, 1)),
            self.encoding.relate(queries, near),
            window_mask(queries, near, self.num_window),
            pairs,
        )

    def encode(self, rows: Tensor, user: Tensor, plan: NSAPlan) -> Encoded:
        """Returns the keys and values of all branches, float `[B, S, d]`."""
        del user
        valid = plan.places.valid
        newest = newest_rows(rows, self.num_window)
        return Encoded(
            ops.concatenate(
                [
                    self.key_compression(rows, valid),
                    self.key_projection(rows),
                    self.window_key_projection(newest),
                ],
                axis=1,
            ),
            ops.concatenate(
                [
                    self.value_compression(rows, valid),
                    self.value_projection(rows),
                    self.window_value_projection(newest),
                ],
                axis=1,
            ),
        )

    @property
    def _branches(self) -> tuple[slice, slice, slice]:
        """Returns which keys are compressed, behaviors, and the window's."""
        count, window = self.num_blocks, self.num_window
        return (
            slice(0, count),
            slice(count, -window),
            slice(-window, None),
        )

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: NSAPlan,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of the behaviors. Nothing is traced.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        del trace
        history = plan.history
        if history is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = self.query_projection(rows)
        compressed, behaviors, _ = self._branches
        coarse, probabilities = self._attend_compressed(
            query,
            Encoded(*(x[:, compressed] for x in encoded)),
            history.features,
            history.mask,
        )
        asked = self._asked(
            query,
            plan.places.position,
            Encoded(*(x[:, behaviors] for x in encoded)),
            plan.places,
            probabilities,
        )
        pairs = history.pair_features
        if not self._reads_by_mask:
            own = Places(*map(asked.rows, plan.places))
            pairs = self.encoding.relate(plan.places, own)
        selected = self._attend_selected(asked, pairs)
        local = self._attend_window(rows, query, history)
        return self._fused(rows, [coarse, selected, local])

    def _attend_window(
        self, rows: Tensor, query: Tensor, history: HistoryPlan
    ) -> Tensor:
        """Attention of the behaviors to the last w, in blocks."""
        size = self._window_block
        blocks = row_blocks(query, size)
        keys, values = (
            flat_groups(with_previous(row_blocks(projection(rows), size)))
            for projection in (
                self.window_key_projection,
                self.window_value_projection,
            )
        )
        local = attend(
            flat_groups(blocks),
            keys,
            values,
            self.encoding.bias(history.window_features),
            history.window_mask,
            self.num_heads,
            self.sink.numerators,
        )
        local = ops.reshape(local, ops.shape(blocks))
        return joined_blocks(local, ops.shape(rows)[1])

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
        del places  # No encoding turns its queries.
        rows = query
        query = self.query_projection(rows)
        compressed, behaviors, window = self._branches
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]

        def part(branch: slice) -> Features:
            return tuple(x[..., branch] for x in features)

        coarse, probabilities = self._attend_compressed(
            query,
            Encoded(keys[:, compressed], values[:, compressed]),
            part(compressed),
            mask[..., compressed],
            within(trace, "compressed"),
        )
        valid = key_mask[:, behaviors]
        length = ops.shape(valid)[1]
        position = length - ops.arange(length, dtype="int32")
        position = position + ops.zeros_like(valid, dtype="int32")
        nothing = ops.zeros_like(valid)
        asked = self._asked(
            query,
            ops.zeros(ops.shape(query)[:2], "int32"),
            Encoded(keys[:, behaviors], values[:, behaviors]),
            Places(position, position, valid, nothing),  # times are not read
            probabilities,
        )
        pairs = part(behaviors)
        if not self._reads_by_mask:
            pairs = tuple(
                asked.rows(ops.broadcast_to(x[:, 0], ops.shape(valid)))
                for x in pairs
            )
        selected = self._attend_selected(
            asked, pairs, within(trace, "selected")
        )
        local = attend(
            query,
            keys[:, window],
            values[:, window],
            self.encoding.bias(part(window)),
            mask[..., window],
            self.num_heads,
            self.sink.numerators,
            within(trace, "window"),
        )
        return self._fused(rows, [coarse, selected, local], trace)

    def _attend_compressed(
        self,
        query: Tensor,
        encoded: Encoded,
        features: Features,
        mask: Tensor,
        trace: Trace | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns output `[B, Q, d]` and probabilities `[B, Q, P]`."""
        own = Trace()
        output = attend(
            query,
            *encoded,
            self.encoding.bias(features),
            mask,
            self.num_heads,
            self.sink.numerators,
            own,
        )
        weights = own.tensors["weights"]  # [B, Q, H, P]
        if trace is not None:
            trace.record("weights", weights)
        return output, ops.sum(weights, axis=2)

    def _asked(
        self,
        query: Tensor,
        position: Tensor,
        encoded: Encoded,
        places: Places,
        probabilities: Tensor,
    ) -> Asked:
        """Selects blocks by the probabilities of compressed ones."""
        size = self.sizes.size
        count = ops.shape(row_blocks(places.valid, size))[1]
        index, found = select_blocks(
            block_importance(probabilities, count, self.sizes),
            position,
            ops.sum(ops.cast(places.valid, "int32"), axis=1, keepdims=True),
            size,
            self.num_selected,
            self.num_forced,
        )
        return Asked(query, position, *encoded, places, index, found, size)

    def _attend_selected(
        self, asked: Asked, features: Features, trace: Trace | None = None
    ) -> Tensor:
        """Attention to selected blocks, by the form that is cheaper."""
        form = attend_masked if self._reads_by_mask else attend_gathered
        return form(
            asked,
            self.encoding.bias(features),
            self.num_heads,
            self.sink.numerators,
            trace,
        )

    def _fused(
        self, rows: Tensor, branches: list[Tensor], trace: Trace | None = None
    ) -> Tensor:
        """Adds up what the gates let through, head by head."""
        batch, queries, width = ops.shape(branches[0])
        heads = (batch, queries, self.num_heads, width // self.num_heads)
        gates = ops.reshape(
            self.branch_gates(rows), (batch, queries, self.num_heads, 3)
        )
        if trace is not None:
            trace.record("gate", ops.cast(gates, "float32"))
        fused = sum(
            gates[..., number : number + 1] * ops.reshape(branch, heads)
            for number, branch in enumerate(branches)
        )
        fused = ops.reshape(fused, (batch, queries, width))
        return self._output(fused, rows, trace)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sizes": list(self.sizes),
            "num_selected": self.num_selected,
            "num_forced": self.num_forced,
            "num_window": self.num_window,
            "longest_history": self.longest_history,
        }
