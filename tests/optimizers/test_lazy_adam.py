"""LazyAdam against dense Adam in float64.

Letters: V rows of the table, d its columns, K ids of a batch.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.optimizers.rate_schedule import RateSchedule

NUM_ROWS, WIDTH = 7, 3
RATE, BETA_1, BETA_2, EPSILON = 0.03, 0.9, 0.999, 1e-7

# Every row is read in each of them, and some several times.
READ_ALL = [
    [0, 1, 2, 3, 4, 5, 6, 3, 3, 0],
    [6, 6, 6, 6, 5, 4, 3, 2, 1, 0],
    [2, 1, 0, 6, 5, 4, 3, 1, 1, 2],
]
READ_SOME = [[1, 1, 4], [4, 4, 4], [6, 1, 1], [1, 4, 1]]


class DenseAdam:
    """Adam of Kingma and Ba, Algorithm 1 in its efficient order, float64.

    Args:
        table: `[V, d]`.
        rate: Step size.
    """

    def __init__(self, table: Any, rate: float = RATE) -> None:
        self.table = table.astype(np.float64)
        self.momentum = np.zeros_like(self.table)
        self.velocity = np.zeros_like(self.table)
        self.rate = rate
        self.step = 0

    def update(self, gradient: Any, rows: Any = slice(None)) -> None:
        self.step += 1
        rate = self.rate * np.sqrt(1 - BETA_2**self.step)
        rate /= 1 - BETA_1**self.step
        gradient = gradient[rows]
        momentum = BETA_1 * self.momentum[rows] + (1 - BETA_1) * gradient
        velocity = BETA_2 * self.velocity[rows] + (1 - BETA_2) * gradient**2
        self.momentum[rows] = momentum
        self.velocity[rows] = velocity
        self.table[rows] -= rate * momentum / (np.sqrt(velocity) + EPSILON)


def _table(num_rows: int = NUM_ROWS) -> keras.Variable:
    values = np.random.default_rng(3).normal(size=(num_rows, WIDTH))
    return keras.Variable(values.astype("float32"), name="rows")


def _numpy(variable: Any) -> Any:
    # A copy: the variable is updated in place.
    return variable.numpy().copy()


def _targets(count: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return values.astype("float32")


def _loss(table: Any, ids: Any, targets: Any) -> Any:
    read = tf.gather(table.value, ids)  # [K, d]
    return tf.reduce_sum(tf.square(read - targets))


def _sparse_gradient(table: Any, ids: Any, targets: Any) -> tf.IndexedSlices:
    with tf.GradientTape() as tape:
        loss = _loss(table, ids, targets)
    gradient = tape.gradient(loss, table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    return gradient


def _dense_gradient(table: Any, ids: Any, targets: Any) -> Any:
    """The derivative by hand, `[V, d]`: ids that repeat add up."""
    gradient = np.zeros_like(table)
    for index, target in zip(ids, targets, strict=True):
        gradient[index] += 2 * (table[index] - target)
    return gradient


def _moments(optimizer: Any, index: int = 0) -> tuple[Any, Any]:
    return (
        _numpy(optimizer._momentums[index]),
        _numpy(optimizer._velocities[index]),
    )


def _assert_close(optimizer: Any, table: Any, reference: DenseAdam) -> None:
    momentum, velocity = _moments(optimizer)
    for value, wanted in (
        (_numpy(table), reference.table),
        (momentum, reference.momentum),
        (velocity, reference.velocity),
    ):
        np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=1e-6)


def test_equals_dense_adam_where_every_row_is_read() -> None:
    table, optimizer = _table(), LazyAdam(RATE)
    reference = DenseAdam(_numpy(table))
    for step in range(6):
        ids, targets = READ_ALL[step % 3], _targets(10, step)
        gradient = _sparse_gradient(table, ids, targets)
        reference.update(_dense_gradient(reference.table, ids, targets))
        optimizer.apply([gradient], [table])
        _assert_close(optimizer, table, reference)


def test_rows_that_are_not_read_do_not_change() -> None:
    table, optimizer = _table(), LazyAdam(RATE)
    # All have moments first: dense Adam would go on moving them.
    optimizer.apply(
        [_sparse_gradient(table, READ_ALL[0], _targets(10))], [table]
    )
    before = (_numpy(table), *_moments(optimizer))
    assert all((values != 0).all() for values in before)
    optimizer.apply([_sparse_gradient(table, [4, 1, 4], _targets(3))], [table])
    after = (_numpy(table), *_moments(optimizer))
    rest = [0, 2, 3, 5, 6]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[rest], new[rest])
        assert (old[[1, 4]] != new[[1, 4]]).all()


def test_a_row_s_moments_wait_until_it_is_read() -> None:
    table, optimizer = _table(), LazyAdam(RATE)
    reference = DenseAdam(_numpy(table))
    for step, ids in enumerate(READ_SOME):
        targets = _targets(len(ids), step)
        gradient = _sparse_gradient(table, ids, targets)
        reference.update(
            _dense_gradient(reference.table, ids, targets), np.unique(ids)
        )
        optimizer.apply([gradient], [table])
        _assert_close(optimizer, table, reference)


def test_keras_adam_is_wrong_where_ids_repeat() -> None:
    """Why there is a LazyAdam. If this fails, Keras has mended its own."""
    ids, targets = READ_ALL[0], _targets(10)
    moved = {}
    for optimizer in (LazyAdam(RATE), keras.optimizers.Adam(RATE)):
        table = _table()
        reference = DenseAdam(_numpy(table))
        reference.update(_dense_gradient(reference.table, ids, targets))
        optimizer.apply([_sparse_gradient(table, ids, targets)], [table])
        error = np.abs(_numpy(table) - reference.table).max(axis=1)
        moved[type(optimizer)] = error
    assert (moved[LazyAdam] < 1e-6).all()
    # Ids 1, 2, 4, 5 and 6 are read once, and 0 and 3 several times.
    wrong = moved[keras.optimizers.Adam] > 0.1 * RATE
    assert wrong.tolist() == [True, False, False, True, False, False, False]


def test_two_gathers_of_one_table_merge() -> None:
    table, optimizer = _table(), LazyAdam(RATE)
    reference = DenseAdam(_numpy(table))
    history, candidates = [0, 1, 2, 3, 0], [3, 4, 5, 6, 0, 0]
    first, second = _targets(5, 1), _targets(6, 2)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = _loss(table, history, first)
            loss += _loss(table, candidates, second)
        gradient = tape.gradient(loss, table.value)
        assert isinstance(gradient, tf.IndexedSlices)
        reference.update(
            _dense_gradient(reference.table, history, first)
            + _dense_gradient(reference.table, candidates, second)
        )
        optimizer.apply([gradient], [table])
        _assert_close(optimizer, table, reference)


def _one_of_each(optimizer: Any) -> tuple[Any, Any]:
    """A table and a dense kernel that train together for four steps."""
    table = _table()
    kernel = keras.Variable(_targets(WIDTH, 9), name="kernel")  # [d, d]
    optimizer.build([table, kernel])
    for step, ids in enumerate(READ_SOME):
        with tf.GradientTape() as tape:
            read = tf.gather(table.value, ids) @ kernel.value
            loss = tf.reduce_sum(tf.square(read - _targets(len(ids), step)))
        gradients = tape.gradient(loss, [table.value, kernel.value])
        optimizer.apply(gradients, [table, kernel])
    return table, kernel


def test_dense_gradients_take_adam_s_own_step() -> None:
    kernels = []
    for optimizer in (
        LazyAdam(RATE, table_learning_rate=0.5),
        keras.optimizers.Adam(RATE),
    ):
        kernel = keras.Variable(_targets(WIDTH, 9))
        for step in range(5):
            optimizer.apply([tf.constant(_targets(WIDTH, step))], [kernel])
        kernels.append((_numpy(kernel), *_moments(optimizer)))
    for value, wanted in zip(*kernels, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_table_learning_rate_is_for_tables_alone() -> None:
    table, optimizer = _table(), LazyAdam(0.01, table_learning_rate=RATE)
    kernel = keras.Variable(_targets(WIDTH, 9))
    reference = DenseAdam(_numpy(table), RATE)
    dense_reference = DenseAdam(_numpy(kernel), 0.01)
    for step, ids in enumerate(READ_ALL):
        targets, dense = _targets(10, step), _targets(WIDTH, step)
        gradient = _sparse_gradient(table, ids, targets)
        reference.update(_dense_gradient(reference.table, ids, targets))
        dense_reference.update(dense)
        optimizer.apply([gradient, tf.constant(dense)], [table, kernel])
    _assert_close(optimizer, table, reference)
    np.testing.assert_allclose(_numpy(kernel), dense_reference.table, rtol=2e-5)


def test_table_learning_rate_is_the_same_by_default() -> None:
    one, _ = _one_of_each(LazyAdam(RATE))
    other, _ = _one_of_each(LazyAdam(RATE, table_learning_rate=RATE))
    np.testing.assert_array_equal(_numpy(one), _numpy(other))


def test_learning_rate_may_be_a_schedule() -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0], [RATE, 0.0]
    )
    table, optimizer = _table(), LazyAdam(schedule)
    tables = []
    for _ in range(3):
        gradient = _sparse_gradient(table, READ_ALL[0], _targets(10))
        optimizer.apply([gradient], [table])
        tables.append(_numpy(table))
    assert (tables[0] != _numpy(_table())).all()
    np.testing.assert_array_equal(tables[1], tables[2])


def _stepper(optimizer: Any, table: Any) -> Any:
    optimizer.build([table])

    def step(ids: Any, targets: Any) -> None:
        optimizer.apply([_sparse_gradient(table, ids, targets)], [table])

    return step


@pytest.mark.parametrize(
    "signature",
    [
        None,
        (
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, WIDTH], tf.float32),
        ),
    ],
    ids=["static", "any_size"],
)
def test_graph_is_eager(signature: Any) -> None:
    tables = []
    for in_graph in (False, True):
        table = _table()
        step = _stepper(LazyAdam(RATE), table)
        if in_graph:
            step = tf.function(step, input_signature=signature, autograph=False)
        for seed, ids in enumerate(READ_SOME):
            step(tf.constant(ids), tf.constant(_targets(len(ids), seed)))
        tables.append(_numpy(table))
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-6)


def _update(optimizer: Any, num_rows: int) -> tuple[Any, Any]:
    """A compiled update of a table, and a batch for it."""
    step = tf.function(_stepper(optimizer, _table(num_rows)), autograph=False)
    ids = np.random.default_rng(0).integers(0, num_rows, 500)
    return step, (tf.constant(ids), tf.constant(_targets(500)))


def _tensors_as_large_as_the_table(optimizer: Any) -> list[str]:
    num_rows = 7919  # a prime: no other axis has this size
    step, batch = _update(optimizer, num_rows)
    graph = step.get_concrete_function(*batch).graph
    return [
        operation.type
        for operation in graph.get_operations()
        for output in operation.outputs
        if num_rows in (output.shape.as_list() if output.shape.rank else [])
    ]


def test_the_table_is_never_a_tensor() -> None:
    with_all = LazyAdam(
        RATE,
        table_learning_rate=RateSchedule(RATE, 3, 50),
        weight_decay=0.1,
        table_weight_decay=0.1,
        clip_norm=1.0,
        ema_decay=0.99,
    )
    for optimizer in (LazyAdam(RATE), with_all):
        assert _tensors_as_large_as_the_table(optimizer) == []
    # Were it one, it would be seen.
    assert _tensors_as_large_as_the_table(keras.optimizers.Adam(RATE)) != []


def test_config_makes_the_same_optimizer() -> None:
    optimizer = LazyAdam(
        0.02,
        table_learning_rate=0.5,
        beta_1=0.8,
        beta_2=0.95,
        epsilon=1e-5,
        name="mine",
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is LazyAdam
    assert again.get_config() == optimizer.get_config()
    assert again.table_learning_rate == 0.5
    default = LazyAdam.from_config(LazyAdam().get_config())
    assert default.table_learning_rate is None
    one, kernel = _one_of_each(optimizer)
    other, other_kernel = _one_of_each(again)
    np.testing.assert_array_equal(_numpy(one), _numpy(other))
    np.testing.assert_array_equal(_numpy(kernel), _numpy(other_kernel))
