"""Linformer: attention to sums of all behaviors.

Axes: B batch, L history length, Q queries, d width, k keys, M longest history.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention, Encoded
from sparsectr.layers.attention.sequence_projection import SequenceProjection
from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.head_attention import attend
from sparsectr.ops.places import Places
from sparsectr.ops.row_groups import full_places
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace


class LinformerPlan(NamedTuple):
    """What all blocks of Linformer share.

    Attributes:
        keys: Places `[B, 0]`: a sum of rows stands nowhere.
        key_mask: bool `[B, k]`, False for an empty history.
        valid: bool `[B, L]`, which rows are behaviors.
    """

    keys: Places
    key_mask: Tensor
    valid: Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class LinformerAttention(Attention):
    """Multi-head attention to k sums of the history (Wang et al., 2020).

        o = softmax(Q (E X W_K)^T / sqrt(d_h)) (F X W_V)

    X are the rows of the behaviors, padding 0; E and F `[k, M]` are a block's
    own and shared by its heads. There is no user key and no gate.

    A key mixes behaviors of all times. So no encoding can say how far a query
    is from it, and behaviors read later ones: no candidate is ever among
    those, but a new behavior changes all rows, and no state can be appended
    to. Positions count from the newest behavior; those beyond M are not read.

    Args:
        num_heads: H.
        encoding: A `NoEncoding`.
        sink: What a query may read beside its keys.
        num_keys: k.
        longest_history: M.

    Call arguments and returns are those of `Attention`, with S = k.

    Raises:
        ValueError: If there is an encoding, or k or M is below 1.

    Cost:
        O(L k d), and 2 k M weights.
    """

    def __init__(
        self,
        num_heads: int,
        encoding: Encoding,
        sink: Sink | None = None,
        num_keys: int = 53,
        longest_history: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, encoding, sink, **kwargs)
        if not isinstance(self.encoding, NoEncoding):
            raise ValueError(
                "`encoding` must be a NoEncoding: the keys stand nowhere. "
                f"Received: encoding={encoding}"
            )
        self.num_keys = num_keys
        self.longest_history = longest_history
        self.key_sums, self.value_sums = (
            SequenceProjection(
                num_keys, longest_history, name=name, dtype=self.dtype_policy
            )
            for name in ("key_sums", "value_sums")
        )

    def build(self, query_shape: Any, *unused: Any, **unnamed: Any) -> None:
        super().build(query_shape)
        self.key_sums.build()
        self.value_sums.build()

    def plan(
        self, history: Places, rows: Tensor, *, for_history: bool
    ) -> LinformerPlan:
        """Finds out whether there is a history. See `Attention`."""
        del rows, for_history
        any_valid = ops.any(history.valid, axis=1, keepdims=True)  # [B, 1]
        return LinformerPlan(
            Places(*(x[:, :0] for x in full_places(history))),
            ops.repeat(any_valid, self.num_keys, axis=1),
            history.valid,
        )

    def encode(
        self, rows: Tensor, user: Tensor, plan: LinformerPlan
    ) -> Encoded:
        """Returns the sums' keys and values, float `[B, k, d]`."""
        del user
        # E (X W) is (E X) W, of fewer rows.
        return Encoded(
            self.key_projection(self.key_sums(rows, plan.valid)),
            self.value_projection(self.value_sums(rows, plan.valid)),
        )

    def read_history(
        self,
        rows: Tensor,
        encoded: Encoded,
        plan: LinformerPlan,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attention of the behaviors to all of them, later ones too."""
        return self._attend(rows, encoded, plan.key_mask, trace)

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
        del features
        return self._attend(query, Encoded(keys, values), key_mask, trace)

    def _attend(
        self,
        query: Tensor,
        encoded: Encoded,
        key_mask: Tensor,
        trace: Trace | None = None,
    ) -> Tensor:
        found = attend(
            self.query_projection(query),
            *encoded,
            None,
            ops.expand_dims(key_mask, 1),
            self.num_heads,
            self.sink.numerators,
            trace,
        )
        return self._output(found, query, trace)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_keys": self.num_keys,
            "longest_history": self.longest_history,
        }
