"""The interface of attentions, and what they have in common.

Axes: B batch, L history length, Q queries, S keys, T keys that have a place,
H heads, d width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras
from keras import ops

from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.serialization import deserialized, serialized
from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.places import Places
from sparsectr.ops.same_as import same_as
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


class Plan(Protocol):
    """All that is the same for every block, computed once a pass.

    Each attention has its own, with at least the places of the keys that
    candidates read.
    """

    @property
    def keys(self) -> Places:
        """Places of the first T keys, `[B, T]`; the others have none."""

    @property
    def key_mask(self) -> Tensor:
        """Which of the S keys are there, bool `[B, S]`; True = keep."""


class Encoded(NamedTuple):
    """What candidates read of a user in one block.

    Attributes:
        keys: float `[B, S, d]`.
        values: float `[B, S, d]`.
    """

    keys: Tensor
    values: Tensor


class Attention(keras.layers.Layer):
    """Multi-head attention of behaviours and candidates to behaviours.

    Keys and values never read a candidate (Eq. 3), so the few that candidates
    ask for are all that scoring needs of a user. In four steps:

    - `plan` chooses keys and relates places: no weights, once a pass;
    - `encode` gives the keys and values that candidates will read;
    - `read_history` is attention of the behaviours themselves;
    - `call` is attention of the candidates, with `relate` before it.

    Queries and keys pass `encoding.turn` once they are projected, keys that
    stand nowhere `encoding.turn_unplaced` where they are read.

    Args:
        num_heads: H.
        encoding: What places do to the logits.
        sink: What a query may read beside its keys.
        output_gate: What closes heads of the output, before W_O; `None` for
            nothing.

    Call arguments:
        query: float `[B, Q, d]`, normalized rows of candidates.
        keys: float `[B, S, d]`, from `encode`.
        values: float `[B, S, d]`, from `encode`.
        features: What `relate` returns.
        key_mask: bool `[B, S]`, from the plan; True = keep.
        places: Places `[B, 1]`, the same for all candidates.
        trace: Gets of every branch `weights` and `logits`, float32
            `[B, Q, H, S']`, which keys may be read, `mask`, bool `[B, Q, S']`
            or `[B, 1, S']`, and if there is a sink, its share of the weights,
            `sink` `[B, Q, H]`.

    Returns:
        float `[B, Q, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Masking:
        A query without a valid key gets exactly 0, unless it has a sink.
    """

    reads_user = False
    """Whether a key stands for the user."""

    picks_rows = False
    """Whether it gathers rows by index, so that there has to be one."""

    traced_branches: tuple[str, ...] = ()
    """Names of its branches, `""` for a single one; none where a trace does not
    tell all that behaviours and candidates read."""

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        output_gate: OutputGate | None = None,
        **kwargs: Any,
    ) -> None:
        # The features of places stay float32; the rest is cast already.
        super().__init__(autocast=False, **kwargs)
        self.num_heads = num_heads
        self.encoding: Encoding = deserialized(encoding)
        self.sink: Sink = deserialized(sink) or NoSink(name="sink")
        self.output_gate: OutputGate | None = deserialized(output_gate)

    def build(self, query_shape: Any, *unused: Any, **unnamed: Any) -> None:
        """Makes the four projections; W_K begins equal to W_Q.

        A query is then drawn to what is like it from the first step on.
        """
        width = query_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        self.query_projection = self._dense(width, "query_projection")
        self.key_projection = self._dense(
            width,
            "key_projection",
            kernel_initializer=same_as(self.query_projection.kernel),
        )
        self.value_projection = self._dense(width, "value_projection")
        self.output_projection = self._dense(width, "output_projection")
        self.encoding.build()
        self.sink.build((None, None, width))
        if self.output_gate is not None:
            self.output_gate.build((None, None, width))
        self.built = True

    def plan(self, history: Places, rows: Tensor, *, for_history: bool) -> Plan:
        """Does the work that all blocks share.

        Args:
            history: Places of the behaviours, `[B, L]`.
            rows: float `[B, L, d]`, the behaviours before the first block.
            for_history: Whether `read_history` will be called.
        """
        raise NotImplementedError

    def encode(self, rows: Tensor, user: Tensor, plan: Any) -> Encoded:
        """Returns the keys and values that candidates will read.

        Args:
            rows: float `[B, L, d]`, normalized rows of behaviours.
            user: float `[B, d]`, the normalized u_c.
            plan: What `plan` returned.
        """
        raise NotImplementedError

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: Any,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of behaviours, each to what lies at or before itself.

        Args:
            rows: float `[B, L, d]`, normalized rows of behaviours.
            encoded: What `encode` returned for them.
            plan: One that was made for the history.
            trace: Gets what it gets of candidates, if there are
                `traced_branches`.

        Returns:
            float `[B, L, d]`.
        """
        raise NotImplementedError

    def relate(
        self, candidates: Places, keys: Places, num_keys: Tensor | int
    ) -> Features:
        """Relates candidates to the keys of the plan, for all blocks.

        Args:
            candidates: Places `[B, 1]`, the same for all candidates.
            keys: Places `[B, T]`.
            num_keys: S; the S - T last keys stand nowhere.

        Returns:
            Tensors `[B, 1, S]`.
        """
        unplaced = 0
        if keys.time.shape[1] is not None:
            unplaced = num_keys - keys.time.shape[1]
        return self.encoding.relate(candidates, keys, unplaced)

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
        raise NotImplementedError

    def key_groups(self, branch: str, mask: Tensor) -> dict[str, Tensor]:
        """Tells the keys of a branch apart.

        Args:
            branch: One of `traced_branches`.
            mask: bool `[B, Q, S']`, from the trace.

        Returns:
            Names of groups, and bool `[B, Q, S']` which keys are in each:
            together `mask`, and no key in two.
        """
        raise NotImplementedError

    def _read(
        self,
        form: Callable[..., Tensor],
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor | None,
        mask: Tensor,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention to keys and to the sink.

        Args:
            form: `attend` or another one of `sparsectr.ops.head_attention`.
            query: float `[B, Q, d]`.
            keys: float `[B, S, d]`.
            values: float `[B, S, d]`.
            bias: float32, broadcasts to `[B, Q, H, S]`; `None` for none.
            mask: bool, broadcasts to `[B, Q, S]`.
            trace: Gets `weights`, `logits`, `mask` and `sink`.

        Returns:
            float `[B, Q, d]`, the heads side by side.
        """
        found = None if trace is None else Trace()
        outputs = form(
            query,
            *self.sink.with_own_key(keys, values, bias, mask),
            self.num_heads,
            self.sink.numerators,
            found,
        )
        if trace is not None and found is not None:
            self._record(trace, found, mask)
        return outputs

    def _record(self, trace: Trace, found: Trace, mask: Tensor) -> None:
        """Keeps what was found of the keys, without the sink's own.

        Args:
            trace: Gets `weights`, `logits`, `mask` and `sink`.
            found: Has `weights` and, but for some forms, `logits`.
            mask: bool `[B, Q, S]`, without the sink's own key.
        """
        own = {
            name: tensor[..., : ops.shape(mask)[-1]]
            for name, tensor in found.tensors.items()
        }
        for name, tensor in own.items():
            trace.record(name, tensor)
        trace.record("mask", mask)
        if self.sink.takes_weight:
            share = 1.0 - ops.sum(own["weights"], axis=-1)
            trace.record("sink", ops.maximum(share, 0.0))  # [B, Q, H]

    def _output(
        self, attended: Tensor, rows: Tensor, trace: Trace | None = None
    ) -> Tensor:
        """Turns what queries have read into the rows of the attention.

        Args:
            attended: float `[B, Q, d]`, the heads side by side.
            rows: float `[B, Q, d]`, the normalized rows of the queries.
            trace: Gets what the gate records.
        """
        if self.output_gate is not None:
            attended = self.output_gate(attended, rows, trace=trace)
        return self.output_projection(attended)

    def _dense(
        self, width: int, name: str, *, use_bias: bool = False, **arguments: Any
    ) -> keras.layers.Dense:
        layer = keras.layers.Dense(
            width,
            use_bias=use_bias,
            name=name,
            dtype=self.dtype_policy,
            **arguments,
        )
        layer.build((None, None, width))
        return layer

    def compute_output_shape(
        self, query_shape: Any, *unused: Any, **unnamed: Any
    ) -> Any:
        return query_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "encoding": serialized(self.encoding),
            "sink": serialized(self.sink),
            "output_gate": None
            if self.output_gate is None
            else serialized(self.output_gate),
        }
