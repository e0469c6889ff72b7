"""Schedules, decay, clipping and averages, against dense float64 NumPy.

Letters: V rows of the table, d its columns, K ids of a batch, T steps.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.optimizers.rate_schedule import RateSchedule

NUM_ROWS, WIDTH, NUM_STEPS = 7, 3, 6
RATE, TABLE_RATE, BETA_1, BETA_2, EPSILON = 0.03, 0.07, 0.9, 0.999, 1e-7

# Ids repeat within and between the two reads; 2 is read once and early, 0
# never.
HISTORY = [[1, 1, 4, 2], [4, 4, 4, 4], [6, 1, 1, 4], [1, 4, 1, 1]]
CANDIDATES = [[1, 5], [4, 3], [6, 6], [3, 3]]

CLIP_NORM = 45.0

SCHEDULED = {
    "learning_rate": RateSchedule(RATE, 2, NUM_STEPS + 1),
    "table_learning_rate": RateSchedule(TABLE_RATE, 2, NUM_STEPS + 1),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "schedules": SCHEDULED,
    "weight_decay": {"weight_decay": 0.8},
    "table_weight_decay": {"table_weight_decay": 0.9},
    "clip_norm": {"clip_norm": CLIP_NORM},
    "ema_decay": {"ema_decay": 0.7},
    "all": {
        **SCHEDULED,
        "weight_decay": 0.8,
        "table_weight_decay": 0.9,
        "clip_norm": CLIP_NORM,
        "ema_decay": 0.7,
    },
}


def _batch(step: int) -> tuple[Any, Any, Any]:
    """Ids of both reads, and a target for each."""
    random = np.random.default_rng(step)
    history = np.array(HISTORY[step % 4], np.int32)
    candidates = np.array(CANDIDATES[step % 4], np.int32)
    count = len(history) + len(candidates)
    # Some batches have far longer gradients than others.
    targets = random.normal(size=(count, WIDTH)) * (1 + step % 3)
    return history, candidates, targets.astype("float32")


def _initial() -> dict[str, Any]:
    random = np.random.default_rng(11)
    shapes = {
        "rows": (NUM_ROWS, WIDTH),
        "kernel": (WIDTH, WIDTH),
        "bias": (WIDTH,),
    }
    return {
        name: random.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }


class Reference:
    """Everything in float64, and each step's gradient as a dense array."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.weights = {
            name: value.astype(np.float64) for name, value in _initial().items()
        }
        self.moments = {
            name: (np.zeros_like(value), np.zeros_like(value))
            for name, value in self.weights.items()
        }
        self.history: list[dict[str, Any]] = []
        self.num_clipped = 0

    def gradients(self, history: Any, candidates: Any, targets: Any) -> Any:
        """Derivatives by hand of sum((rows K + b - target)^2)."""
        ids = np.concatenate([history, candidates])
        read = self.weights["rows"][ids]  # [K, d]
        error = read @ self.weights["kernel"] + self.weights["bias"]
        error = 2 * (error - targets)
        rows = np.zeros_like(self.weights["rows"])
        np.add.at(rows, ids, error @ self.weights["kernel"].T)
        return {"rows": rows, "kernel": read.T @ error, "bias": error.sum(0)}

    def rates(self) -> tuple[float, float]:
        done = len(self.history)
        if "learning_rate" not in self.options:
            return RATE, TABLE_RATE
        share = min((done + 1) / 2, 1.0)
        if done >= 2:
            angle = np.pi * (done - 2) / (NUM_STEPS + 1 - 2)
            share = (1 + np.cos(angle)) / 2
        return RATE * share, TABLE_RATE * share

    def step(self, history: Any, candidates: Any, targets: Any) -> None:
        gradients = self.gradients(history, candidates, targets)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        clip_norm = self.options.get("clip_norm", np.inf)
        self.num_clipped += norm > clip_norm
        rate, table_rate = self.rates()
        read = np.unique(np.concatenate([history, candidates]))
        decays = {
            "rows": self.options.get("table_weight_decay", 0.0),
            "kernel": self.options.get("weight_decay", 0.0),
            "bias": 0.0,
        }
        for name, gradient in gradients.items():
            places = read if name == "rows" else slice(None)
            self._adam(
                name,
                places,
                gradient[places] * min(1.0, clip_norm / norm),
                table_rate if name == "rows" else rate,
                decays[name],
            )
        self.history.append({n: v.copy() for n, v in self.weights.items()})

    def _adam(
        self, name: str, places: Any, gradient: Any, rate: float, decay: float
    ) -> None:
        done = len(self.history) + 1
        momentum, velocity = self.moments[name]
        momentum[places] = BETA_1 * momentum[places] + (1 - BETA_1) * gradient
        velocity[places] = (
            BETA_2 * velocity[places] + (1 - BETA_2) * gradient**2
        )
        bias = np.sqrt(1 - BETA_2**done) / (1 - BETA_1**done)
        change = rate * bias * momentum[places]
        change /= np.sqrt(velocity[places]) + EPSILON
        weights = self.weights[name]
        weights[places] = weights[places] * (1 - rate * decay) - change

    def average(self) -> dict[str, Any]:
        decay = self.options["ema_decay"]
        shares = decay ** np.arange(len(self.history) - 1, -1, -1.0)
        shares /= shares.sum()
        return {
            name: sum(
                share * weights[name]
                for share, weights in zip(shares, self.history, strict=True)
            )
            for name in self.weights
        }


def _optimizer(**options: Any) -> LazyAdam:
    rates = {"learning_rate": RATE, "table_learning_rate": TABLE_RATE}
    return LazyAdam(**{**rates, **options})


class Trained:
    """The same with `LazyAdam`; forward and backward pass may be XLA's."""

    def __init__(self, optimizer: LazyAdam, jit_compile: bool) -> None:
        self.optimizer = optimizer
        self.weights = {
            name: keras.Variable(value, name=name)
            for name, value in _initial().items()
        }
        self.variables = list(self.weights.values())
        optimizer.build(self.variables)
        self.step = tf.function(self._step, autograph=False)
        self._gradients = tf.function(
            self._loss_gradients, jit_compile=jit_compile, autograph=False
        )

    def values(self) -> dict[str, Any]:
        return {
            name: variable.numpy().copy()
            for name, variable in self.weights.items()
        }

    def _loss_gradients(
        self, history: Any, candidates: Any, target: Any
    ) -> Any:
        rows, kernel, bias = (variable.value for variable in self.variables)
        with tf.GradientTape() as tape:
            # Two gathers, as a model's history and candidates are.
            read = tf.concat(
                [tf.gather(rows, history), tf.gather(rows, candidates)], axis=0
            )
            error = read @ kernel + bias - target
            loss = tf.reduce_sum(tf.square(error))
        gradients = tape.gradient(loss, [rows, kernel, bias])
        assert isinstance(gradients[0], tf.IndexedSlices)
        return gradients

    def _step(self, *batch: Any) -> None:
        self.optimizer.apply(self._gradients(*batch), self.variables)


def _assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=3e-5, atol=3e-6, err_msg=name
        )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("option", OPTIONS)
def test_equals_the_dense_reference(option, jit_compile):
    options = OPTIONS[option]
    reference = Reference(options)
    trained = Trained(_optimizer(**options), jit_compile)
    for step in range(NUM_STEPS):
        batch = _batch(step)
        rates = trained.optimizer.rates_after(step)
        assert rates == pytest.approx(reference.rates(), rel=1e-5)
        reference.step(*batch)
        trained.step(*map(tf.constant, batch))
        _assert_close(trained.values(), reference.weights)
    if "clip_norm" in options:
        assert 0 < reference.num_clipped < NUM_STEPS
    if "ema_decay" in options:
        last = trained.values()
        with trained.optimizer.evaluated_weights():
            averages = trained.values()
        _assert_close(averages, reference.average())
        np.testing.assert_array_equal(averages["rows"][0], last["rows"][0])
        assert np.abs(averages["kernel"] - last["kernel"]).max() > 1e-3


def test_each_option_changes_something():
    """Else the test above could not fail."""
    finals = []
    for options in ({}, *OPTIONS.values()):
        reference = Reference(options)
        for step in range(NUM_STEPS):
            reference.step(*_batch(step))
        weights = reference.weights
        finals.append(np.concatenate([v.ravel() for v in weights.values()]))
    default, *others = finals
    changed = {
        name: np.abs(other - default).max() > 1e-2
        for name, other in zip(OPTIONS, others, strict=True)
    }
    # An average changes what is evaluated, and nothing in training.
    assert changed == {name: name != "ema_decay" for name in OPTIONS}


def test_weights_that_are_not_averaged_are_evaluated_as_they_are():
    trained = Trained(_optimizer(), jit_compile=False)
    trained.step(*map(tf.constant, _batch(0)))
    last = trained.values()
    with trained.optimizer.evaluated_weights():
        for name, value in trained.values().items():
            np.testing.assert_array_equal(value, last[name])


def test_a_gradient_that_is_not_finite_is_not_hidden_by_clipping():
    trained = Trained(_optimizer(clip_norm=CLIP_NORM), jit_compile=False)
    history, candidates, targets = _batch(0)
    targets[0, 0] = np.inf
    trained.step(*map(tf.constant, (history, candidates, targets)))
    assert not all(np.isfinite(v).all() for v in trained.values().values())


@pytest.mark.parametrize(
    ("argument", "value", "instead"),
    [
        ("clipnorm", 1.0, "`clip_norm`"),
        ("clipvalue", 1.0, "`clip_norm`"),
        ("global_clipnorm", 1.0, "`clip_norm`"),
        ("use_ema", True, "`ema_decay`"),
        ("ema_momentum", 0.9, "`ema_decay`"),
        ("ema_overwrite_frequency", 3, "`ema_decay`"),
        ("gradient_accumulation_steps", 2, "larger batches"),
        ("loss_scale_factor", 8.0, "leave it out"),
        ("amsgrad", True, "leave it out"),
    ],
)
def test_what_would_not_see_merged_rows_is_refused(argument, value, instead):
    with pytest.raises(ValueError, match=rf"^`{argument}` is not") as error:
        LazyAdam(**{argument: value})
    assert instead in str(error.value)
    assert f"Received: {argument}={value}" in str(error.value)


def test_a_constraint_is_refused():
    table = keras.layers.Embedding(3, 2, embeddings_constraint="non_neg")
    table.build()
    with pytest.raises(ValueError, match=r"rewrites rows .*/embeddings with"):
        LazyAdam().build(table.trainable_variables)


def test_every_argument_of_keras_is_known():
    """One that Keras adds has to be looked at before it is let through."""
    assert set(keras.optimizers.Adam().get_config()) == {
        *("name", "learning_rate", "beta_1", "beta_2", "epsilon"),
        *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
        *("use_ema", "ema_momentum", "ema_overwrite_frequency", "amsgrad"),
        *("gradient_accumulation_steps", "loss_scale_factor"),
    }


def test_config_makes_the_same_optimizer():
    optimizer = _optimizer(**OPTIONS["all"])
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert again.get_config() == optimizer.get_config()
    values = []
    for each in (optimizer, again):
        trained = Trained(each, jit_compile=False)
        for step in range(NUM_STEPS):
            trained.step(*map(tf.constant, _batch(step)))
        with each.evaluated_weights():
            values.append(trained.values())
    for name, value in values[0].items():
        np.testing.assert_array_equal(values[1][name], value)
