"""The sink of gpt-oss: a learnable logit for each head.

Axes: S keys, H heads.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.masked_softmax import exponentials_beside_sink
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class LearnedSink(Sink):
    """One more logit s in the softmax, whose value is 0.

        p_j = exp(z_j) / (exp(s[h]) + sum_i exp(z_i))

    OpenAI, gpt-oss (2025); Keras Hub's `GptOssAttention`. As if a query had
    one more key with a value of zeros, whose logit does not depend on the
    query.

    Args:
        initial_logits: Where s starts, one number for each of the H heads.
            Those of zeros are the softmax off by one.

    Raises:
        ValueError: If there is no head.

    Masking:
        A query without a valid key gets weights of 0 from the formula itself.

    Numerics:
        float32 under every policy; the maximum that is subtracted is at least
        s.

    Cost:
        H weights for all branches of a block, one exponential a query and
        head.

    Differs from the source:
        The branches of EvoAttention share s, as they share the slopes of
        RelTemporal. It starts at `initial_logits`, not at random.
    """

    def __init__(self, initial_logits: Sequence[float], **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if not initial_logits:
            raise ValueError(
                "`initial_logits` must be one number a head. "
                f"Received: initial_logits={initial_logits}"
            )
        self.initial_logits = [float(logit) for logit in initial_logits]

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        self.logit = self.add_weight(
            name="logit",
            shape=(len(self.initial_logits),),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                self.initial_logits, dtype
            ),
            # The attention around it may compute in another precision.
            autocast=False,
        )
        self.built = True

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Returns `exponentials_beside_sink` of s."""
        shape = [1] * len(logits.shape)
        shape[head_axis] = len(self.initial_logits)
        sink = ops.reshape(ops.convert_to_tensor(self.logit), shape)
        return exponentials_beside_sink(logits, mask, sink)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_logits": self.initial_logits}
