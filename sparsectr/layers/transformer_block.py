"""A transformer block of behaviours and, behind them, candidates.

Axes: B batch, L history length, C candidates, S rows of a sequence, d width.
"""

from typing import Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.ops.candidate_attention import attend_history_and_self
from sparsectr.ops.causal_blocks import QueryBlock
from sparsectr.ops.head_attention import attend_by_head
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.slice_axis import slice_axis
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class TransformerBlock(keras.layers.Layer):
    """A transformer block, normalized behind each half (Chen et al., 2019).

        z = LN(x + Dropout(MultiHead(x)))
        y = LN(z + Dropout(LeakyReLU(z W_1 + b_1) W_2 + b_2))

    `encode` takes the behaviours, `call` the candidates behind them, `read`
    whole sequences.

    Args:
        num_heads: H.
        feed_forward_multiplier: Columns of W_1 in widths d.
        dropout_rate: Of both dropouts.

    Call arguments:
        candidates: float `[B, C, d]`.
        keys: float `[B, L, d]`, from `encode`.
        values: float `[B, L, d]`, from `encode`.
        key_mask: bool `[B, L]`; True = keep.
        training: Whether dropout is applied.

    Returns:
        float `[B, C, d]`.

    Raises:
        ValueError: If H does not divide the width.

    Masking:
        A row of padding that may read nothing gets 0 from attention.
    """

    def __init__(
        self,
        num_heads: int,
        feed_forward_multiplier: int = 4,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feed_forward_multiplier = feed_forward_multiplier
        self.dropout_rate = dropout_rate
        self.dropout = Dropout(
            dropout_rate, name="dropout", dtype=self.dtype_policy
        )

    def build(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> None:
        width = candidates_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        self.query_projection = self._dense(width, width, "query_projection")
        self.key_projection = self._dense(width, width, "key_projection")
        self.value_projection = self._dense(width, width, "value_projection")
        self.output_projection = self._dense(width, width, "output_projection")
        hidden = self.feed_forward_multiplier * width
        self.hidden = self._dense(
            width, hidden, "hidden", use_bias=True, activation="leaky_relu"
        )
        self.output_unit = self._dense(
            hidden, width, "output_unit", use_bias=True
        )
        self.attention_norm = self._norm(width, "attention_norm")
        self.feed_forward_norm = self._norm(width, "feed_forward_norm")
        self.built = True

    def _dense(
        self,
        width: int,
        units: int,
        name: str,
        use_bias: bool = False,
        **more: Any,
    ) -> keras.layers.Dense:
        layer = keras.layers.Dense(
            units,
            use_bias=use_bias,
            name=name,
            dtype=self.dtype_policy,
            **more,
        )
        layer.build((None, None, width))
        return layer

    def _norm(self, width: int, name: str) -> keras.layers.LayerNormalization:
        layer = keras.layers.LayerNormalization(
            epsilon=1e-6, name=name, dtype=self.dtype_policy
        )
        layer.build((None, None, width))
        return layer

    def encode(
        self,
        behaviors: Tensor,
        queries: tuple[QueryBlock, ...],
        *,
        is_last: bool,
        training: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Passes the behaviours through the block, causally.

        Args:
            behaviors: float `[B, L, d]`.
            queries: Their blocks of queries; not read if `is_last`.
            is_last: Whether nothing will read the behaviours' rows, which are
                not computed then.
            training: Whether dropout is applied.

        Returns:
            The behaviours' rows `[B, L, d]` (`None` if `is_last`), and the
            keys and values that candidates will read, float `[B, L, d]`.
        """
        keys = self.key_projection(behaviors)
        values = self.value_projection(behaviors)
        if is_last:
            return None, keys, values
        query = self.query_projection(behaviors)
        attended = [
            self._attend(
                slice_axis(query, block.start, block.end),
                slice_axis(keys, 0, block.end),
                slice_axis(values, 0, block.end),
                block.mask,
            )
            for block in queries
        ]
        sums = ops.concatenate(attended, axis=1)  # [B, L, d]
        return self._output(behaviors, sums, training), keys, values

    def call(
        self,
        candidates: Tensor,
        keys: Tensor,
        values: Tensor,
        key_mask: Tensor,
        training: bool = False,
    ) -> Tensor:
        attended = attend_history_and_self(
            self.query_projection(candidates),
            keys,
            values,
            self.key_projection(candidates),
            self.value_projection(candidates),
            key_mask,
            self.num_heads,
        )
        return self._output(candidates, attended, training)

    def read(
        self, rows: Tensor, sequence: Tensor, mask: Tensor, training: bool
    ) -> Tensor:
        """Passes some rows of a sequence through the block.

        Args:
            rows: float `[B, Q, d]`.
            sequence: float `[B, S, d]`, what they may read.
            mask: bool, broadcasts to `[B, Q, S]`; True = keep.
            training: Whether dropout is applied.
        """
        attended = self._attend(
            self.query_projection(rows),
            self.key_projection(sequence),
            self.value_projection(sequence),
            mask,
        )
        return self._output(rows, attended, training)

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        def softmax(logits: Tensor, mask: Tensor, _: int) -> Any:
            return masked_exponentials(logits, mask)

        return attend_by_head(
            query, keys, values, None, mask, self.num_heads, softmax
        )

    def _output(self, rows: Tensor, attended: Tensor, training: bool) -> Tensor:
        """Returns what follows attention, `[B, rows, d]`."""
        attended = self.output_projection(attended)
        attended = self.dropout(attended, training=training)
        rows = self.attention_norm(rows + attended)
        hidden = self.output_unit(self.hidden(rows))
        hidden = self.dropout(hidden, training=training)
        return self.feed_forward_norm(rows + hidden)

    def compute_output_shape(
        self, candidates_shape: Any, *unused: Any, **unnamed: Any
    ) -> Any:
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_multiplier": self.feed_forward_multiplier,
            "dropout_rate": self.dropout_rate,
        }
