"""Full attention: every behaviour a key, the paper's variant A1.

Axes: B batch, L history length, Q queries, H heads, d width.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.causal_blocks import QueryBlock, causal_blocks
from sparsectr.ops.head_attention import attend_by_head
from sparsectr.ops.key_groups import first_keys, last_key, share_out
from sparsectr.ops.places import Places
from sparsectr.ops.query_blocks import NUM_QUERY_BLOCKS
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


class FullPlan(NamedTuple):
    """What all blocks of full attention share.

    Attributes:
        keys: Places `[B, L]`.
        key_mask: bool `[B, L]`.
        query_blocks: Of the history, in order; `None` where only candidates
            will ask.
    """

    keys: Places
    key_mask: Tensor
    query_blocks: tuple[QueryBlock, ...] | None


@keras.saving.register_keras_serializable(package="sparsectr")
class FullAttention(Attention):
    """Multi-head attention to all behaviours (Eq. 16).

    The baseline that EvoAttention is measured against: a behaviour reads
    itself and every one before it, a candidate reads them all. There is no
    user key and no gate.

    Behaviours ask in blocks, each of which reads the keys up to its end: of
    long histories, nearly half of all pairs are not computed, which the
    causal mask would throw away. Where L is not known before the pass, as in
    an exported graph, there is one block.

    Args:
        num_heads: H.
        encoding: What places do to the logits.
        sink: What a query may read beside its keys.
        num_query_blocks: Into how many blocks behaviours are cut, at most.
        output_gate: What closes heads of the output.

    Call arguments, returns and errors are those of `Attention`, with S = L.
    The trace of the history is of all pairs, O(L^2 H).

    Cost:
        O(L^2 d) for the history, at best 17 of 32 pairs.
    """

    traced_branches = ("",)

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        num_query_blocks: int = NUM_QUERY_BLOCKS,
        output_gate: OutputGate | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, output_gate, **kwargs)
        self.num_query_blocks = num_query_blocks

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> FullPlan:
        """Relates the places of all behaviours. See `Attention`."""
        del rows
        if not for_history:
            return FullPlan(history, history.valid, None)
        blocks = causal_blocks(
            history, self.encoding.relate, self.num_query_blocks
        )
        return FullPlan(history, history.valid, blocks)

    def encode(self, rows: Tensor, user: Tensor, plan: FullPlan) -> Encoded:
        """Returns keys and values of all behaviours, float `[B, L, d]`."""
        del user
        keys = self.encoding.turn(
            self.key_projection(rows), plan.keys, is_query=False
        )
        return Encoded(keys, self.value_projection(rows))

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: FullPlan,
        trace: Trace | None = None,
    ) -> Tensor:
        """Causal attention of the behaviours to themselves. See `Attention`.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        if plan.query_blocks is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = self.encoding.turn(
            self.query_projection(rows), plan.keys, is_query=True
        )
        parts = [None if trace is None else Trace() for _ in plan.query_blocks]
        attended = [
            self._attend(
                slice_axis(query, block.start, block.end),
                slice_axis(encoded.keys, 0, block.end),
                slice_axis(encoded.values, 0, block.end),
                block.features,
                block.mask,
                part,
            )
            for block, part in zip(plan.query_blocks, parts, strict=True)
        ]
        if trace is not None:
            _record_joined(trace, parts, ops.shape(rows)[1])
        return self._output(ops.concatenate(attended, axis=1), rows, trace)

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
        attended = self._attend(
            self.encoding.turn(
                self.query_projection(query), places, is_query=True
            ),
            keys,
            values,
            features,
            ops.expand_dims(key_mask, 1),
            trace,
        )
        return self._output(attended, query, trace)

    def key_groups(self, branch: str, mask: Tensor) -> dict[str, Tensor]:
        """Tells the oldest and the newest behaviours apart."""
        del branch  # There is one.
        return share_out(
            mask, {"newest": last_key(mask), "oldest": first_keys(mask)}
        )

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        mask: Tensor,
        trace: Trace | None = None,
    ) -> Tensor:
        return self._read(
            attend_by_head,
            query,
            keys,
            values,
            self.encoding.bias(features),
            mask,
            trace,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_query_blocks": self.num_query_blocks,
        }


def _record_joined(
    trace: Trace, parts: list[Trace | None], length: Tensor | int
) -> None:
    """Records of the whole history what blocks of queries have recorded.

    Args:
        trace: Gets it.
        parts: One for each block.
        length: L; a block has not read the keys behind it.
    """
    found = [part.tensors for part in parts if part is not None]
    for name in found[0]:
        blocks = [tensors[name] for tensors in found]
        if name != "sink":  # It has no axis of keys.
            nothing = [(0, 0)] * (len(blocks[0].shape) - 1)
            value = False if blocks[0].dtype == "bool" else 0.0
            blocks = [
                ops.pad(
                    x,
                    [*nothing, (0, length - ops.shape(x)[-1])],
                    constant_values=value,
                )
                for x in blocks
            ]
        trace.record(name, ops.concatenate(blocks, axis=1))
