"""The average of rows that are seldom written, against the dense one.

Letters: V rows of the table, d its columns, T steps.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.optimizers.weight_average import WeightAverage

NUM_ROWS, WIDTH, NUM_STEPS = 7, 3, 400


def _dense_average(history: Any, decay: float) -> Any:
    """The definition: all weights of all steps, the newest counting most."""
    shares = decay ** np.arange(len(history) - 1, -1, -1, dtype=np.float64)
    return np.tensordot(shares, history, 1) / shares.sum()


def _variable(seed: int, *shape: int, name: str) -> keras.Variable:
    values = np.random.default_rng(seed).normal(size=shape)
    return keras.Variable(values.astype("float32"), name=name)


def _rows(random: Any, step: int) -> Any:
    """Row 6 is written never, 5 in the first step, 4 in two late ones."""
    rows = np.unique(random.integers(0, 4, 3))
    more = {1: [5], 300: [4], 399: [4]}.get(step, [])
    return np.concatenate([random.permutation(rows), more]).astype(np.int32)


class Written:
    """A table, some rows of which change in each step, a bias and a scalar.

    The last weight never changes: no gradient reaches it.
    """

    def __init__(self, decay: float) -> None:
        self.weights = [
            _variable(1, NUM_ROWS, WIDTH, name="rows"),
            _variable(2, WIDTH, name="bias"),
            _variable(3, name="scalar"),
            _variable(4, WIDTH, name="unused"),
        ]
        self.average = WeightAverage(decay, self.weights)
        self.history: list[list[Any]] = [[] for _ in self.weights]

    def step(self, step: int) -> None:
        random = np.random.default_rng(step)
        steps = tf.constant(step, tf.float32)
        table, *dense, _ = (weight.value for weight in self.weights)
        rows = _rows(random, step)
        old = tf.gather(table, rows)
        new = old + random.normal(size=old.shape).astype("float32")
        table.scatter_update(tf.IndexedSlices(new, rows))
        self.average.update_rows(0, rows, old, new, steps)
        for index, weight in enumerate(dense, 1):
            change = random.normal(size=weight.shape)
            weight.assign_add(tf.cast(change, tf.float32))
            self.average.update(index, tf.identity(weight), steps)
        for weight, values in zip(self.weights, self.history, strict=True):
            values.append(weight.numpy().astype(np.float64))

    def assert_average(self, decay: float, rtol: float) -> None:
        with self.average.in_place(len(self.history[0])):
            found = [weight.numpy().copy() for weight in self.weights]
        for value, history in zip(found, self.history, strict=True):
            expected = _dense_average(np.stack(history), decay)
            np.testing.assert_allclose(value, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_equals_the_dense_average(decay):
    written = Written(decay)
    initial = [weight.numpy().copy() for weight in written.weights]
    for step in range(1, NUM_STEPS + 1):
        written.step(step)
        if step in (1, 2, 299, NUM_STEPS):
            # Some rows were written in this step, some long before.
            written.assert_average(decay, rtol=1e-4)
    with written.average.in_place(NUM_STEPS):
        # What never changed is what it was, to the bit.
        np.testing.assert_array_equal(
            written.weights[0].numpy()[6], initial[0][6]
        )
        np.testing.assert_array_equal(written.weights[3].numpy(), initial[3])


def test_it_is_the_newest_weights_that_count():
    """What the reference says of the definition itself."""
    history = np.array([[8.0], [4.0], [2.0]])
    expected = (2.0 + 0.5 * 4.0 + 0.25 * 8.0) / 1.75
    assert _dense_average(history, 0.5) == pytest.approx([expected])


def test_weights_are_put_back_to_the_bit():
    written = Written(0.9)
    for step in (1, 2, 3):
        written.step(step)
    before = [weight.numpy().copy() for weight in written.weights]

    def fail_in_place() -> None:
        with written.average.in_place(3):
            assert (written.weights[1].numpy() != before[1]).all()
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_place()
    for weight, value in zip(written.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    # A look at the averages has not changed them.
    written.step(4)
    written.assert_average(0.9, rtol=1e-5)


def test_before_the_first_step_it_is_the_weights():
    written = Written(0.9)
    before = [weight.numpy().copy() for weight in written.weights]
    written.average.replace(0)
    for weight, value in zip(written.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
