"""An exponential moving average of weights, exact for rows of tables."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class WeightAverage:
    """Averages of weights over the steps of a run, the newest counting most.

    After t steps, with w_i the weights after step i and decay d,

        a_t = sum_i d^(t - i) w_i / sum_i d^(t - i),    i = 1 .. t,

    the usual recursion, freed of its start at zero: the weights that a run
    began with are no part of it, however short it is.

    A row of a table whose last step was s, and which was w until step t, has

        a_t = w + k(s, t) (a_s - w),    k(s, t) = d^(t - s) S_s / S_t

    with S_n = 1 - d^n, so that it need not be touched in between: a step
    writes the averages of those rows alone that it writes anyway. The result
    is the dense average, to float rounding, wherever it is read.

    Memory: float32 for every weight, and for every row. A table of width 32,
    with its two moments, grows by a third. `in_place` holds one more copy of
    the weights as long as it lasts.

    Args:
        decay: d, above 0 and below 1.
        weights: The Keras variables, built. What is not among them, such as
            running statistics of a layer, is not averaged.

    Attributes:
        variables: Its own variables, to be saved, by kind and path of weight.
    """

    def __init__(self, decay: float, weights: Sequence[keras.Variable]) -> None:
        self._log_decay = math.log(decay)
        self._newest = 1.0 - decay
        self._weights = [weight.value for weight in weights]
        self._averages = [
            tf.Variable(tf.zeros(weight.shape), trainable=False)
            for weight in weights
        ]
        # float32, which counts 16 million steps: GPUs do not scatter int32.
        self._last_steps = [
            tf.Variable(tf.zeros(weight.shape[:1]), trainable=False)
            for weight in weights
        ]
        paths = [weight.path for weight in weights]
        self.variables = {
            "weights": dict(zip(paths, self._averages, strict=True)),
            "last_steps": dict(zip(paths, self._last_steps, strict=True)),
        }

    def update(self, index: int, new: tf.Tensor, step: tf.Tensor) -> None:
        """Adds a weight that the step has written as a whole.

        Args:
            index: Place of the weight.
            new: Its value after the step.
            step: Steps of the run, this one included, float32.
        """
        average, last = self._averages[index], self._last_steps[index]
        share = self._newest / self._sum(step)
        average.assign_add(share * (new - average))
        last.assign(tf.fill(last.shape, step))

    def update_rows(
        self,
        index: int,
        rows: tf.Tensor,
        old: tf.Tensor,
        new: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Adds rows of a table; no other row has changed in the step.

        Args:
            index: Place of the table.
            rows: Distinct indices, `[R]`.
            old: What they were before the step, `[R, d]`.
            new: What they are after it, `[R, d]`.
            step: Steps of the run, this one included, float32.
        """
        average, last = self._averages[index], self._last_steps[index]
        kept = self._kept(tf.gather(last, rows), step)[:, tf.newaxis]
        share = self._newest / self._sum(step)
        # Of the steps in between, when they were `old`, is the rest.
        value = old + kept * (tf.gather(average, rows) - old)
        value += share * (new - old)
        average.scatter_update(tf.IndexedSlices(value, rows))
        steps = tf.fill(tf.shape(rows), step)
        last.scatter_update(tf.IndexedSlices(steps, rows))

    def of_rows(self, index: int) -> list[tf.Variable]:
        """Returns what there is of each row of a weight."""
        return [self._averages[index], self._last_steps[index]]

    def copy_row(self, index: int, source: int, rows: tf.Tensor) -> None:
        """Gives rows of a table the average of another one.

        Args:
            index: Place of the table.
            source: The row that is copied.
            rows: Distinct indices, `[R]`, whose weights become the copied
                row's at the same time.
        """
        copy_row(self._averages[index], source, rows)
        copy_row(self._last_steps[index], source, rows)

    @contextlib.contextmanager
    def in_place(self, step: Any) -> Iterator[None]:
        """Puts the averages in the place of the weights, for a while.

        Args:
            step: Steps of the run.
        """
        kept = [tf.identity(weight) for weight in self._weights]
        self.replace(step)
        try:
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=True):
                weight.assign(value)

    def replace(self, step: Any) -> None:
        """Puts the averages in the place of the weights, for good.

        Args:
            step: Steps of the run.
        """
        step = tf.cast(step, tf.float32)
        for weight, average, last in zip(
            self._weights, self._averages, self._last_steps, strict=True
        ):
            kept = self._kept(tf.convert_to_tensor(last), step)
            rank = len(weight.shape)
            kept = tf.reshape(kept, (*last.shape, *[1] * (rank - 1)))
            weight.assign(weight + kept * (average - weight))

    def _kept(self, since: tf.Tensor, until: tf.Tensor) -> tf.Tensor:
        """Returns k(since, until); 0 before the first step."""
        decayed = tf.exp((until - since) * self._log_decay)
        return decayed * self._sum(since) / self._sum(tf.maximum(until, 1.0))

    def _sum(self, steps: tf.Tensor) -> tf.Tensor:
        """Returns S of a number of steps."""
        return -tf.math.expm1(steps * self._log_decay)


def copy_row(variable: tf.Variable, source: int, rows: tf.Tensor) -> None:
    """Copies one row of a variable to others.

    Args:
        variable: `[num_rows, ...]`.
        source: The row that is copied.
        rows: Distinct indices, `[R]`.
    """
    shape = (len(rows), *variable.shape[1:])
    value = tf.broadcast_to(tf.gather(variable, source), shape)
    variable.scatter_update(tf.IndexedSlices(value, rows))
