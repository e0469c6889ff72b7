"""The sink of the softmax off by one: a logit of 0 beside those of the keys."""

import keras

from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.masked_softmax import exponentials_beside_sink
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class OffByOneSink(Sink):
    """A softmax whose sum may stay below one.

        p_j = exp(z_j) / (1 + sum_i exp(z_i))

    E. Miller, "Attention is off by one" (2023); the `add_zero_attn` of
    PyTorch's `MultiheadAttention`. As if a query had one more key, all of
    zeros, with a value of zeros.

    Masking:
        A query without a valid key gets weights of 0 from the formula itself.

    Numerics:
        The maximum that is subtracted is at least 0.

    Cost:
        No weight, and one exponential a query and head.

    Differs from the source:
        Biases are logits too. Those of RelTemporal are far below 0 in its
        steep heads, as -16 for a behaviour of a day ago in the first one, so
        that such heads read next to nothing until their slopes are learned.
        `LearnedSink` starts where they do read.
    """

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Returns `exponentials_beside_sink` of 0."""
        del head_axis
        return exponentials_beside_sink(logits, mask, 0.0)
