"""Semi-local attention: the first behaviors and the last.

Axes: B batch, L history length, Q queries, H heads, d width, k2 first and
k1 recent behaviors, n blocks of k1 rows.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.gather_rows import gather_rows
from sparsectr.ops.head_attention import attend
from sparsectr.ops.key_groups import first_keys, last_key, share_out
from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import (
    flat_groups,
    full_places,
    joined_blocks,
    newest_rows,
    pad_rows,
    row_blocks,
    window_mask,
    with_previous,
)
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace

CANDIDATES = ("budget", "all")


class HistoryPlan(NamedTuple):
    """What behaviors read: the first ones, their own block and the one before.

    Attributes:
        features: Of the encoding, `[B n, k1, k2 + 2 k1]` each.
        mask: bool `[B n, k1, k2 + 2 k1]`.
    """

    features: Features
    mask: Tensor


class SemiLocalPlan(NamedTuple):
    """What all blocks of semi-local attention share.

    Attributes:
        first_index: int32 `[B, k2]`, one more than the indices of the first
            behaviors, 0 where there are fewer.
        keys: Places `[B, S]` of the keys of candidates.
        key_mask: bool `[B, S]`.
        history: What behaviors read; `None` where only candidates will ask.
    """

    first_index: Tensor
    keys: Places
    key_mask: Tensor
    history: HistoryPlan | None


@keras.saving.register_keras_serializable(package="sparsectr")
class SemiLocalAttention(Attention):
    """Multi-head attention to the first k2 behaviors and the last k1.

        A_p = [0, min(k2, p + 1)) and [max(k2, p - k1 + 1), p + 1)

    with p counted from the first valid behavior, as in ULTRA-HSTU: the prefix
    works as a sink. There is no user key and no gate.

    Behaviors ask in blocks of k1, which read the prefix, themselves and the
    block before: dense products instead of a window for each row.

    Args:
        num_heads: H.
        encoding: What places add to the logits.
        sink: What a query may read beside its keys.
        num_first: k2.
        num_recent: k1.
        candidates: "all" for candidates that read every behavior, as
            published, "budget" for those that read what the newest one reads.

    Call arguments and returns are those of `Attention`, with S = L for "all"
    and k2 + k1 for "budget".

    Raises:
        ValueError: If k1 or k2 is below 1, or there is no such `candidates`.

    Cost:
        O(L (k2 + 2 k1) d), of which up to k1 keys are masked. No tensor is
        `[L, L]`.

    Differs from the paper:
        A softmax, as in every attention here, where HSTU has SiLU. A stack
        does not go on with the newest rows alone.
    """

    traced_branches = ("",)

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        num_first: int = 16,
        num_recent: int = 37,
        candidates: str = "budget",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, **kwargs)
        for name, value in (
            ("num_first", num_first),
            ("num_recent", num_recent),
        ):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        if candidates not in CANDIDATES:
            raise ValueError(
                f"`candidates` must be one of {', '.join(CANDIDATES)}. "
                f"Received: candidates={candidates!r}"
            )
        self.num_first = num_first
        self.num_recent = num_recent
        self.candidates = candidates

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> SemiLocalPlan:
        """Finds the first behaviors of every history. See `Attention`."""
        del rows
        history = full_places(history)
        count = ops.sum(
            ops.cast(history.valid, "int32"), axis=1, keepdims=True
        )  # [B, 1]
        position = count - ops.arange(self.num_first, dtype="int32")
        position = ops.maximum(position, 0)  # [B, k2]
        valid = position > 0
        length = ops.shape(history.time)[1]
        index = ops.where(valid, length + 1 - position, 0)
        first = Places(
            gather_rows(pad_rows(history.time, 1), index),
            position,
            valid,
            ops.zeros_like(valid),
        )
        # Those of the prefix are no keys once more.
        after = history.position <= count - self.num_first
        recent = history._replace(valid=ops.logical_and(history.valid, after))
        keys = history
        if self.candidates == "budget":
            keys = Places(
                *(
                    ops.concatenate(
                        [x, newest_rows(y, self.num_recent)], axis=1
                    )
                    for x, y in zip(first, recent, strict=True)
                )
            )
        return SemiLocalPlan(
            index,
            keys,
            keys.valid,
            self._plan_history(history, first, recent) if for_history else None,
        )

    def _plan_history(
        self, history: Places, first: Places, recent: Places
    ) -> HistoryPlan:
        """Relates behaviors to the keys of their block."""
        blocks = [row_blocks(x, self.num_recent) for x in history]
        queries = Places(*map(flat_groups, blocks))  # [B n, k1]
        keys = Places(
            *(
                self._keys_of_blocks(x, y)
                for x, y in zip(first, recent, strict=True)
            )
        )  # [B n, k2 + 2 k1]
        split = self.num_first
        is_past = ops.expand_dims(
            keys.position[:, :split], 1
        ) >= ops.expand_dims(queries.position, 2)
        in_prefix = ops.logical_and(
            is_past, ops.expand_dims(keys.valid[:, :split], 1)
        )
        near = Places(*(x[:, split:] for x in keys))
        in_window = window_mask(queries, near, self.num_recent)
        return HistoryPlan(
            self.encoding.relate(queries, keys),
            ops.concatenate([in_prefix, in_window], axis=2),
        )

    def _keys_of_blocks(self, first: Tensor, sequence: Tensor) -> Tensor:
        """Returns what the rows of a block read, the first rows foremost.

        Args:
            first: Tensor `[B, k2, ...]`.
            sequence: Tensor `[B, L, ...]`.

        Returns:
            Tensor `[B n, k2 + 2 k1, ...]`.
        """
        near = with_previous(row_blocks(sequence, self.num_recent))
        batch, count = ops.shape(near)[:2]
        first = ops.broadcast_to(
            ops.expand_dims(first, 1),
            (batch, count, self.num_first, *first.shape[2:]),
        )
        return flat_groups(ops.concatenate([first, near], axis=2))

    def encode(
        self, rows: Tensor, user: Tensor, plan: SemiLocalPlan
    ) -> Encoded:
        """Returns the keys and values of candidates, float `[B, S, d]`."""
        del user
        if self.candidates == "budget":
            first = gather_rows(pad_rows(rows, 1), plan.first_index)
            newest = newest_rows(rows, self.num_recent)
            rows = ops.concatenate([first, newest], axis=1)
        return Encoded(self.key_projection(rows), self.value_projection(rows))

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: SemiLocalPlan,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of the behaviors. See `Attention`.

        Raises:
            ValueError: If the plan was made for candidates only.
        """
        if plan.history is None:
            raise ValueError("`plan` must be made with for_history=True.")
        query = row_blocks(self.query_projection(rows), self.num_recent)
        if self.candidates == "budget":
            encoded = Encoded(
                self.key_projection(rows), self.value_projection(rows)
            )
        keys, values = (
            self._keys_of_blocks(
                gather_rows(pad_rows(x, 1), plan.first_index), x
            )
            for x in encoded
        )
        own = None if trace is None else Trace()
        found = self._attend(
            flat_groups(query),
            keys,
            values,
            plan.history.features,
            plan.history.mask,
            own,
        )
        found = ops.reshape(found, ops.shape(query))
        length = ops.shape(rows)[1]
        found = joined_blocks(found, length)
        if trace is not None and own is not None:
            blocks = ops.shape(query)[:3]
            for name, tensor in own.tensors.items():
                tensor = ops.reshape(tensor, (*blocks, *tensor.shape[2:]))
                trace.record(name, joined_blocks(tensor, length))
        return self._output(found, rows, trace)

    def key_groups(self, branch: str, mask: Tensor) -> dict[str, Tensor]:
        """Tells the newest behavior and the first ones apart."""
        del branch  # There is one.
        return share_out(
            mask,
            {
                "newest": last_key(mask),
                "oldest": first_keys(mask, self.num_first),
            },
        )

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
        found = self._attend(
            self.query_projection(query),
            keys,
            values,
            features,
            ops.expand_dims(key_mask, 1),
            trace,
        )
        return self._output(found, query, trace)

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
            attend,
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
            "num_first": self.num_first,
            "num_recent": self.num_recent,
            "candidates": self.candidates,
        }
