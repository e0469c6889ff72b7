"""The interface of encodings: what places do to the logits of attention.

Axes: B batch, Q queries, S keys, H heads, d width.
"""

from typing import Any

import keras

from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor

Features = tuple[Tensor, ...]
"""What an encoding knows of some queries and keys, `[B, Q, S]` each."""


class Encoding(keras.layers.Layer):
    """What times and positions do to the logits of attention.

    They add a bias, in two steps. `relate` has no weights: what it returns is
    the same for every block, and is computed once a pass. `bias` applies the
    weights of one block to it, or to some of its keys.

    Or they turn queries and keys before their product; by default, `turn` and
    `turn_unplaced` return what they are given. A key turns by its own place
    alone, so that a user state may hold it.
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

    def turn(
        self,
        rows: Tensor,
        places: Places,
        num_unplaced: int = 0,
        *,
        is_query: bool,
    ) -> Tensor:
        """Turns queries or keys by their places.

        Args:
            rows: float `[B, Q + num_unplaced, d]`, projected.
            places: Places `[B, Q]`, or `[B, 1]`, the same for all rows.
            num_unplaced: How many of the rows, the last ones, stand nowhere;
                they stay as they are.
            is_query: Whether they are queries.

        Returns:
            Rows like those given.
        """
        del places, num_unplaced, is_query
        return rows

    def turn_unplaced(
        self, keys: Tensor, num_unplaced: int, queries: Places
    ) -> Tensor:
        """Turns keys that stand nowhere as the queries are turned.

        The product of the two is then what it would be without a turn.

        Args:
            keys: float `[B, S, d]`.
            num_unplaced: How many of the keys, the last ones, stand nowhere.
            queries: Places `[B, 1]`, the same for all queries; or `[B, Q]`
                for a single key.

        Returns:
            float `[B, S, d]`; a single key may come back as one a query,
            `[B, Q, d]`.
        """
        del num_unplaced, queries
        return keys
