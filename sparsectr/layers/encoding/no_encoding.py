"""No encoding: attention by content alone, the paper's variant B1."""

import keras

from sparsectr.layers.encoding.encoding import Encoding, Features
from sparsectr.ops.places import Places


@keras.saving.register_keras_serializable(package="sparsectr")
class NoEncoding(Encoding):
    """Adds nothing to the logits."""

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Returns nothing."""
        del queries, keys, num_unplaced
        return ()

    def bias(self, features: Features) -> None:
        """Returns `None`."""
        del features
