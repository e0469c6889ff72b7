"""The interface of encodings: what places add to the logits of attention.

Axes: B batch, Q queries, S keys, H heads.
"""

from typing import Any

import keras

from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor

Features = tuple[Tensor, ...]
"""What an encoding knows of some queries and keys, `[B, Q, S]` each."""


class Encoding(keras.layers.Layer):
    """What times and positions add to the logits of attention.

    In two steps. `relate` has no weights: what it returns is the same for
    every block, and is computed once a pass. `bias` applies the weights of
    one block to it, or to some of its keys.
    """

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        """Creates the weights of one block, if there are any."""
        self.built = True

    def relate(
        self, queries: Places, keys: Places, num_unplaced: int = 0
    ) -> Features:
        """Relates the places of queries and keys.

        Args:
            queries: Places `[B, Q]`.
            keys: Places `[B, S]`, or `[B, Q, S]` for keys of each query.
            num_unplaced: How many more keys follow that stand nowhere, such
                as the user's; they get bias 0.

        Returns:
            Tensors `[B, Q, S + num_unplaced]`.
        """
        raise NotImplementedError

    def bias(self, features: Features) -> Tensor | None:
        """Returns the biases of keys.

        Args:
            features: Of `relate`, or the same part of each of them.

        Returns:
            float32 `[B, Q, H, S]`; `None` for none at all.
        """
        raise NotImplementedError
