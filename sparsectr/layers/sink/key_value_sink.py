"""The sink that is a key and a value of its own.

Axes: B batch, Q queries, S keys, H heads, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class KeyValueSink(Sink):
    """One more learned key and value for each head, which all queries read.

        o = softmax([z, q k' / sqrt(d_h)]) [V; v']

    M. Sun et al., "Massive activations in large language models" (2024); the
    `add_bias_kv` of PyTorch's `MultiheadAttention`. With k' = 0 and v' = 0 it
    is the softmax off by one.

    Masking:
        A query without a valid key gets v', by the formula itself.

    Numerics:
        k' and v' have the dtype of the keys.

    Cost:
        2 d weights, and one key more in every branch.

    Differs from the source:
        The branches of EvoAttention share k' and v', as they share W_K and
        W_V; they have no place and so a bias of 0, as the user's key. Both
        start at a normal distribution of 0.02, so near the softmax off by
        one: what `OffByOneSink` says of steep heads is true here too.
    """

    def build(self, rows_shape: Any) -> None:
        def add_row(name: str) -> Any:
            return self.add_weight(
                name=name,
                shape=(rows_shape[-1],),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
            )

        self.key = add_row("key")
        self.value = add_row("value")
        self.built = True

    def with_own_key(
        self, keys: Tensor, values: Tensor, bias: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Adds k' and v' behind the others."""
        columns = [(0, 0), (0, 0), (0, 1)]
        if bias is not None:
            bias = ops.pad(bias, [(0, 0), *columns])
        return (
            _with_row(keys, self.key),
            _with_row(values, self.value),
            bias,
            ops.pad(mask, columns, constant_values=True),
        )

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Returns `masked_exponentials`: the key is one of them."""
        del head_axis
        return masked_exponentials(logits, mask)


def _with_row(rows: Tensor, row: Tensor) -> Tensor:
    """Returns rows `[B, S, d]` and the same one `[d]` behind each of them."""
    batch, _, width = ops.shape(rows)
    row = ops.reshape(ops.cast(row, rows.dtype), (1, 1, width))
    row = ops.broadcast_to(row, (batch, 1, width))
    return ops.concatenate([rows, row], axis=1)  # [B, S + 1, d]
