"""Dilated attention: every s-th behavior a key.

Axes: B batch, L history length, Q queries, H heads, d width, s stride,
K keys, n rows of a class.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.head_attention import attend
from sparsectr.ops.masked_softmax import Numerators
from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import (
    flat_groups,
    full_places,
    joined_blocks,
    joined_classes,
    newest_rows,
    row_blocks,
    stride_classes,
    window_mask,
    with_previous,
)
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within


class HistoryPlan(NamedTuple):
    """What behaviors read of each other.

    Attributes:
        features: Of the encoding, for each class of rows that stand a
            multiple of s apart, `[B s, n, n]` each.
        mask: bool `[B s, n, n]`.
        local_features: For each block of s rows against itself and the block
            before, `[B n, s, 2 s]` each; none without local heads.
        local_mask: bool `[B n, s, 2 s]`, or `None`.
    """

    features: Features
    mask: Tensor
    local_features: Features
    local_mask: Tensor | None


class DilatedPlan(NamedTuple):
    """What all blocks of dilated attention share.

    Attributes:
        keys: Places `[B, S]` of the keys of candidates.
        key_mask: bool `[B, S]`.
        history: What behaviors read; `None` where only candidates will ask.
    """

    keys: Places
    key_mask: Tensor
    history: HistoryPlan | None


@keras.saving.register_keras_serializable(package="sparsectr")
class DilatedAttention(Attention):
    """Multi-head attention to every s-th behavior (Child et al., 2019).

        A_i = {i, i - s, ..., i - s (K - 1)}    strided heads
        A_i = {i, i - 1, ..., i - l + 1}        local heads, l = min(s, K)

    A candidate reads what the newest behavior reads. There is no user key and
    no gate.

    Rows a multiple of s apart form a class, within which the pattern is
    causal attention: s small dense products instead of a gather.

    Where all heads are strided, behaviors of one class never read those of
    another: candidates see one of s behaviors, however many blocks there are.
    With local heads, for which half of all is usual, two blocks reach every
    one where K is at least s.

    Args:
        num_heads: H.
        encoding: What places add to the logits.
        sink: What a query may read beside its keys.
        num_keys: K.
        stride: s.
        num_local_heads: How many heads, the first, are local.

    Call arguments and returns are those of `Attention`, with S = K, and l more
    with local heads.

    Raises:
        ValueError: If K or s is below 1, or there are not so many heads.

    Cost:
        O(L K d) up to a history of K s behaviors, half of it masked; beyond,
        O(L^2 d / s). No tensor is `[L, L]`.

    Differs from the paper:
        It also merges the two patterns, or alternates them block by block;
        here a head has one. Local heads read no more keys than strided ones.
    """

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        num_keys: int = 53,
        stride: int = 20,
        num_local_heads: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, **kwargs)
        for name, value in (("num_keys", num_keys), ("stride", stride)):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        if not 0 <= num_local_heads <= num_heads:
            raise ValueError(
                f"`num_local_heads` must be from 0 to num_heads={num_heads}. "
                f"Received: num_local_heads={num_local_heads}"
            )
        self.num_keys = num_keys
        self.stride = stride
        self.num_local_heads = num_local_heads

    @property
    def _num_local(self) -> int:
        """Returns the keys of a local head, 0 if there is none."""
        return min(self.stride, self.num_keys) if self.num_local_heads else 0

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> DilatedPlan:
        """Chooses the keys of candidates. See `Attention`."""
        del rows
        history = full_places(history)
        keys = Places(*map(self._of_candidates, history))
        return DilatedPlan(
            keys,
            keys.valid,
            self._plan_history(history) if for_history else None,
        )

    def _of_candidates(self, sequence: Tensor) -> Tensor:
        """Returns the rows that candidates read, `[B, S, ...]`."""
        reach = newest_rows(sequence, self.num_keys * self.stride)
        found = reach[:, self.stride - 1 :: self.stride]  # [B, K, ...]
        if not self._num_local:
            return found
        newest = newest_rows(sequence, self._num_local)
        return ops.concatenate([found, newest], axis=1)

    def _plan_history(self, history: Places) -> HistoryPlan:
        classes = Places(
            *(flat_groups(stride_classes(x, self.stride)) for x in history)
        )  # [B s, n]
        features = self.encoding.relate(classes, classes)
        mask = window_mask(classes, classes, self.num_keys * self.stride)
        if not self._num_local:
            return HistoryPlan(features, mask, (), None)
        blocks = Places(*(row_blocks(x, self._num_local) for x in history))
        queries = Places(*map(flat_groups, blocks))
        keys = Places(*(flat_groups(with_previous(x)) for x in blocks))
        return HistoryPlan(
            features,
            mask,
            self.encoding.relate(queries, keys),
            window_mask(queries, keys, self._num_local),
        )

    def encode(self, rows: Tensor, user: Tensor, plan: DilatedPlan) -> Encoded:
        """Returns the keys and values of candidates, float `[B, S, d]`."""
        del user, plan
        selected = self._of_candidates(rows)
        return Encoded(
            self.key_projection(selected), self.value_projection(selected)
        )

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: DilatedPlan,
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
        length = ops.shape(rows)[1]
        projected = (
            self.query_projection(rows),
            self.key_projection(rows),
            self.value_projection(rows),
        )
        outputs = []
        if history.local_mask is not None:
            query, keys, values = (
                row_blocks(x, self._num_local)
                for x in self._columns(projected, is_local=True)
            )
            found = self._attend(
                flat_groups(query),
                flat_groups(with_previous(keys)),
                flat_groups(with_previous(values)),
                history.local_features,
                history.local_mask,
                is_local=True,
            )
            found = ops.reshape(found, ops.shape(query))
            outputs.append(joined_blocks(found, length))
        if self.num_local_heads < self.num_heads:
            classes = [
                stride_classes(x, self.stride)
                for x in self._columns(projected, is_local=False)
            ]
            query, keys, values = map(flat_groups, classes)
            found = self._attend(
                query,
                keys,
                values,
                history.features,
                history.mask,
                is_local=False,
            )
            found = ops.reshape(found, ops.shape(classes[0]))
            outputs.append(joined_classes(found, length))
        return self._output(ops.concatenate(outputs, axis=-1), rows)

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
        rows, query = query, self.query_projection(query)
        mask = ops.expand_dims(key_mask, 1)  # [B, 1, S]
        outputs = []
        for is_local, part, count in (
            (True, slice(self.num_keys, None), self.num_local_heads),
            (
                False,
                slice(0, self.num_keys),
                self.num_heads - self.num_local_heads,
            ),
        ):
            if not count:
                continue
            projected = (query, keys[:, part], values[:, part])
            outputs.append(
                self._attend(
                    *self._columns(projected, is_local),
                    tuple(x[..., part] for x in features),
                    mask[..., part],
                    is_local,
                    within(trace, "local" if is_local else "strided"),
                )
            )
        return self._output(ops.concatenate(outputs, axis=-1), rows, trace)

    def _columns(
        self, rows: tuple[Tensor, Tensor, Tensor], is_local: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the columns of the local heads, or of the others."""
        width = rows[0].shape[-1] // self.num_heads * self.num_local_heads
        own = slice(0, width) if is_local else slice(width, None)
        query, keys, values = rows
        return query[..., own], keys[..., own], values[..., own]

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        features: Features,
        mask: Tensor,
        is_local: bool,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of the local heads, or of the others."""
        first = 0 if is_local else self.num_local_heads
        last = self.num_local_heads if is_local else self.num_heads
        bias = self.encoding.bias(features)
        if bias is not None and bias.shape[2] != 1:
            bias = bias[:, :, first:last]
        return attend(
            query,
            keys,
            values,
            bias,
            mask,
            last - first,
            self._numerators(first, last),
            trace,
        )

    def _numerators(self, first: int, last: int) -> Numerators:
        """Returns those of the sink for some of the heads.

        A sink may have a weight a head and so wants to see all: the others
        get logits of 0, whose weights are thrown away.
        """
        if last - first == self.num_heads:
            return self.sink.numerators

        def numerators(
            logits: Tensor, mask: Tensor, head_axis: int
        ) -> tuple[Tensor, Tensor]:
            padding = [(0, 0)] * len(logits.shape)
            padding[head_axis] = (first, self.num_heads - last)
            found = self.sink.numerators(
                ops.pad(logits, padding), mask, head_axis
            )
            own = [slice(None)] * len(logits.shape)
            own[head_axis] = slice(first, last)
            weights, total = (x[tuple(own)] for x in found)
            return weights, total

        return numerators

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_keys": self.num_keys,
            "stride": self.stride,
            "num_local_heads": self.num_local_heads,
        }
