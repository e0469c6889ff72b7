"""No sink: the softmax of the paper."""

import keras

from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class NoSink(Sink):
    """A softmax over the valid keys; exactly 0 where there is none."""

    takes_weight = False

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Returns `masked_exponentials`."""
        del head_axis
        return masked_exponentials(logits, mask)
