"""Adam that touches only the rows of a table that a batch has read."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="sparsectr")
class LazyAdam(keras.optimizers.Adam):
    """Adam with merged, sparse updates of embedding tables.

    The gradient of a gather is `tf.IndexedSlices`: one row for each time an
    id was read, repeated ids included. Rows of the same id are summed first,
    then moments and weights of those rows alone are updated: for a batch,
    that is what dense Adam does to them. Dense gradients take Adam's own
    step.

    Keras 3.15 does not merge: it squares the parts of a row's gradient
    instead of their sum, and rewrites the whole table besides.

    Args:
        learning_rate: Step size of dense weights.
        table_learning_rate: Step size of rows of tables; `None` for the
            same. Not a schedule.

    Differs from Adam:
        The moments of a row decay only when the row is read. The bias
        correction counts all steps.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        table_learning_rate: float | None = None,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if self.amsgrad:
            raise ValueError("`amsgrad` is not supported.")
        self.table_learning_rate = table_learning_rate

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable. See `keras.optimizers.Optimizer`."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        if self.table_learning_rate is not None:
            learning_rate = self.table_learning_rate
        rows, gradient = _merge(gradient)
        index = self._get_variable_index(variable)
        momentum = _variable_of(self._momentums[index])
        velocity = _variable_of(self._velocities[index])

        step = tf.cast(_variable_of(self.iterations) + 1, gradient.dtype)
        rate = tf.cast(learning_rate, gradient.dtype)
        rate *= tf.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        new_momentum = self.beta_1 * tf.gather(momentum, rows)
        new_momentum += (1.0 - self.beta_1) * gradient
        new_velocity = self.beta_2 * tf.gather(velocity, rows)
        new_velocity += (1.0 - self.beta_2) * tf.square(gradient)
        change = rate * new_momentum
        change /= tf.sqrt(new_velocity) + self.epsilon

        momentum.scatter_update(tf.IndexedSlices(new_momentum, rows))
        velocity.scatter_update(tf.IndexedSlices(new_velocity, rows))
        weights = _variable_of(variable)
        # Not `scatter_sub`: it takes longer than these two together.
        new_weights = tf.gather(weights, rows) - change
        weights.scatter_update(tf.IndexedSlices(new_weights, rows))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the optimizer."""
        return {
            **super().get_config(),
            "table_learning_rate": self.table_learning_rate,
        }


def _merge(gradient: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the distinct rows and the sum of the gradients of each."""
    rows, place = tf.unique(gradient.indices)
    merged = tf.math.unsorted_segment_sum(
        gradient.values, place, tf.shape(rows)[0]
    )
    return rows, merged


def _variable_of(variable: Any) -> Any:
    """Returns the `tf.Variable` of a Keras variable."""
    return (
        getattr(variable, "value", variable)
        if isinstance(variable, keras.Variable)
        else variable
    )
