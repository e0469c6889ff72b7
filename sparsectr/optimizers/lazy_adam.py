"""Adam that touches only the rows of a table that a batch has read."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from sparsectr.optimizers.weight_average import WeightAverage, copy_row

_INSTEAD = {
    "amsgrad": "leave it out",
    "clipnorm": "use `clip_norm`",
    "clipvalue": "use `clip_norm`",
    "global_clipnorm": "use `clip_norm`",
    "use_ema": "use `ema_decay`",
    "ema_momentum": "use `ema_decay`",
    "ema_overwrite_frequency": "use `ema_decay`",
    "gradient_accumulation_steps": "use larger batches",
    "loss_scale_factor": "leave it out, bfloat16 needs none",
}
"""Arguments of Adam that Keras applies to the gradient of a table before its
repeated ids are merged, or to all of its rows; and what to use."""


@keras.saving.register_keras_serializable(package="sparsectr")
class LazyAdam(keras.optimizers.Adam):
    """Adam with merged, sparse updates of embedding tables.

    The gradient of a gather is `tf.IndexedSlices`: one row for each time an
    id was read, repeated ids included. Rows of the same id are summed first,
    over all replicas, then moments and weights of those rows alone are
    updated: for a batch, that is what dense Adam does to them. Dense
    gradients take Adam's own step.

    Keras 3.15 does not merge: it squares the parts of a row's gradient
    instead of their sum, and rewrites the whole table besides.

    Args:
        learning_rate: Step size of dense weights: a number or a schedule.
        table_learning_rate: That of rows of tables; `None` for the same.
        weight_decay: Every step takes this part of the weight, times the
            learning rate, from each variable named `kernel`: from no bias,
            scale, slope or table. Apart from the gradient, as in AdamW.
        table_weight_decay: Likewise from the rows that a batch has read, that
            of padding among them, times their learning rate.
        clip_norm: Greatest norm of all gradients together, those of rows
            merged, those of replicas summed: longer ones are scaled down to
            it. `None` for any.
        ema_decay: Decay of an average of the weights (see `WeightAverage`);
            0 for none.

    Attributes:
        average: The average of the weights, or `None`.

    Raises:
        ValueError: If an argument of Keras's Adam is given that does not do
            to merged rows what it says.

    Differs from Adam:
        The moments of a row decay only when the row is read, and so does the
        row itself. The bias correction counts all steps.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        table_learning_rate: Any = None,
        weight_decay: float | None = None,
        table_weight_decay: float = 0.0,
        clip_norm: float | None = None,
        ema_decay: float = 0.0,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        for argument in kwargs.keys() & _INSTEAD:
            raise ValueError(
                f"`{argument}` is not supported: {_INSTEAD[argument]}. "
                f"Received: {argument}={kwargs[argument]!r}"
            )
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay or None,
            name=name,
            **kwargs,
        )
        self.table_learning_rate = table_learning_rate
        self.table_weight_decay = table_weight_decay
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.average: WeightAverage | None = None

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Creates moments, and averages if there are any.

        Raises:
            ValueError: If a variable has a constraint.
        """
        if self.built:
            return
        for variable in var_list:
            if variable.constraint is not None:
                raise ValueError(
                    "A constraint rewrites rows that were not read, and after "
                    f"the average was taken. Received: {variable.path} with "
                    f"{variable.constraint!r}"
                )
        self.exclude_from_weight_decay(
            [variable for variable in var_list if variable.name != "kernel"]
        )
        super().build(var_list)
        if self.ema_decay:
            self.average = WeightAverage(self.ema_decay, var_list)

    def rates_after(self, step: int) -> tuple[float, float]:
        """Returns the learning rates of the step after so many.

        Returns:
            That of dense weights, and that of rows of tables.
        """
        rate = _variable_of(self._learning_rate)
        table_rate = self.table_learning_rate
        dense, table = (
            float(tf.convert_to_tensor(_rate_at(each, step)))
            for each in (rate, rate if table_rate is None else table_rate)
        )
        return dense, table

    @contextlib.contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Puts the average in the place of the weights, if there is one."""
        if self.average is None:
            yield
            return
        with self.average.in_place(_variable_of(self.iterations)):
            yield

    def copy_row(
        self, variable: keras.Variable, source: int, rows: Any
    ) -> None:
        """Makes rows of a table copies of another one, its average too.

        Args:
            variable: One of those that are trained.
            source: The row that is copied.
            rows: Distinct indices, `[R]`, of rows that are never trained.
        """
        rows = tf.convert_to_tensor(rows)
        copy_row(variable.value, source, rows)
        if self.average is not None:
            index = self._get_variable_index(variable)
            self.average.copy_row(index, source, rows)

    @contextlib.contextmanager
    def row_copied(
        self, variable: keras.Variable, source: int, rows: Any
    ) -> Iterator[None]:
        """Makes rows of a table copies of another one, for a while.

        Args:
            variable: One of those that are trained.
            source: The row that is copied.
            rows: Distinct indices, `[R]`.
        """
        changed = [variable.value]
        if self.average is not None:
            index = self._get_variable_index(variable)
            changed += self.average.of_rows(index)
        rows = tf.convert_to_tensor(rows)
        kept = [tf.gather(each, rows) for each in changed]
        self.copy_row(variable, source, rows)
        try:
            yield
        finally:
            for each, values in zip(changed, kept, strict=True):
                each.scatter_update(tf.IndexedSlices(values, rows))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Merges repeated ids, sums over replicas, and clips, in this order."""
        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            # Fewer rows travel.
            grads_and_vars = [
                (_merge(gradient), variable)
                for gradient, variable in grads_and_vars
            ]
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        # What several replicas have read.
        gradients = [_merge(gradient) for gradient, _ in pairs]
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        variables = [variable for _, variable in pairs]
        return list(zip(gradients, variables, strict=True))

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable. See `keras.optimizers.Optimizer`."""
        index = self._get_variable_index(variable)
        if isinstance(gradient, tf.IndexedSlices):
            self._update_rows(index, gradient, variable, learning_rate)
            return
        super().update_step(gradient, variable, learning_rate)
        if self.average is not None:
            step = tf.cast(_variable_of(self.iterations) + 1, tf.float32)
            self.average.update(
                index, tf.convert_to_tensor(_variable_of(variable)), step
            )

    def _update_rows(
        self,
        index: int,
        merged: tf.IndexedSlices,
        variable: Any,
        learning_rate: Any,
    ) -> None:
        rows, gradient = merged.indices, merged.values
        steps_before = _variable_of(self.iterations)
        if self.table_learning_rate is not None:
            learning_rate = _rate_at(self.table_learning_rate, steps_before)
        momentum = _variable_of(self._momentums[index])
        velocity = _variable_of(self._velocities[index])

        step = tf.cast(steps_before + 1, gradient.dtype)
        table_rate = tf.cast(learning_rate, gradient.dtype)
        rate = table_rate * (
            tf.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        )
        new_momentum = self.beta_1 * tf.gather(momentum, rows)
        new_momentum += (1.0 - self.beta_1) * gradient
        new_velocity = self.beta_2 * tf.gather(velocity, rows)
        new_velocity += (1.0 - self.beta_2) * tf.square(gradient)
        change = rate * new_momentum
        change /= tf.sqrt(new_velocity) + self.epsilon

        momentum.scatter_update(tf.IndexedSlices(new_momentum, rows))
        velocity.scatter_update(tf.IndexedSlices(new_velocity, rows))
        weights = _variable_of(variable)
        weights_before = tf.gather(weights, rows)
        if self.table_weight_decay:
            change += table_rate * self.table_weight_decay * weights_before
        # Not `scatter_sub`: it takes longer than these two together.
        new_weights = weights_before - change
        weights.scatter_update(tf.IndexedSlices(new_weights, rows))
        if self.average is not None:
            self.average.update_rows(
                index, rows, weights_before, new_weights, step
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the optimizer."""
        config = super().get_config()
        rate = self.table_learning_rate
        return {
            **{key: config[key] for key in config.keys() - _INSTEAD.keys()},
            "table_learning_rate": keras.saving.serialize_keras_object(rate),
            "table_weight_decay": self.table_weight_decay,
            "clip_norm": self.clip_norm,
            "ema_decay": self.ema_decay,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "LazyAdam":
        """Returns the optimizer that `get_config` describes."""
        rate = keras.saving.deserialize_keras_object(
            config.get("table_learning_rate"), custom_objects=custom_objects
        )
        config = {**config, "table_learning_rate": rate}
        optimizer: LazyAdam = super().from_config(config, custom_objects)
        return optimizer


def _merge(gradient: Any) -> Any:
    """Returns a gradient with distinct rows, each the sum of its own."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(gradient.indices)
    merged = tf.math.unsorted_segment_sum(
        gradient.values, place, tf.shape(rows)[0]
    )
    return tf.IndexedSlices(merged, rows, gradient.dense_shape)


def _rate_at(rate: Any, steps: Any) -> Any:
    """Returns a learning rate, which may be a schedule, after some steps."""
    return rate(steps) if callable(rate) else rate


def _variable_of(variable: Any) -> Any:
    """Returns the `tf.Variable` of a Keras variable."""
    return (
        getattr(variable, "value", variable)
        if isinstance(variable, keras.Variable)
        else variable
    )
