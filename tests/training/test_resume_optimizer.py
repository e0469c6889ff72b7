"""All that the optimizer can do goes on where a run was stopped."""

import dataclasses

import numpy as np
import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from sparsectr.errors import InputError
from sparsectr.training.devices import make_strategy
from sparsectr.training.load_model import load_model
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from tests.tiny_run import CONFIG, change, logged, make_trainer, saved_state

CONFIGURATION = change(
    dataclasses.replace(CONFIG, model=MeanPoolingRecipe(embedding_dim=4)),
    "train",
    max_steps=7,
    eval_batch_size=32,
    embedding_learning_rate=3e-3,
    learning_rate_schedule="cosine",
    warmup_steps=2,
    weight_decay=0.5,
    embedding_weight_decay=0.3,
    clip_norm=0.2,
    ema_decay=0.8,
)
"""Saved after steps 4 and 7."""


class Stopped(BaseException):
    """The run was killed."""


class StoppingStep:
    """A training step that ends its run in the sixth step."""

    def __init__(self, step):
        self._step = step
        self.loss, self.auc = step.loss, step.auc
        self.reset_metrics = step.reset_metrics
        self.done = 0

    def __call__(self, batch, jit_compile):
        if self.done == 5:
            raise Stopped
        self.done += 1
        return self._step(batch, jit_compile)


@pytest.fixture(scope="module")
def unbroken(tiny_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    trainer = make_trainer(CONFIGURATION, tiny_store, folder)
    trainer.train()
    return trainer, folder


@pytest.fixture(scope="module")
def resumed(tiny_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed") / "run"
    trainer = make_trainer(CONFIGURATION, tiny_store, folder)
    trainer.train_step = StoppingStep(trainer.train_step)
    with pytest.raises(Stopped):
        trainer.train()
    # With other weights at first, and other averages.
    trainer = Trainer(
        CONFIGURATION, tiny_store, RunDirectory(folder), make_strategy(1)
    )
    trainer.train(resume=True)
    return trainer, folder


def test_state_equals_that_of_an_unbroken_run(unbroken, resumed):
    expected, found = saved_state(unbroken[1]), saved_state(resumed[1])
    averages = [name for name in expected if name.startswith("average/")]
    # The average of each weight, and the last step of each of its rows.
    assert len(averages) == 2 * len(unbroken[0].model.trainable_variables)
    assert found.keys() == expected.keys()
    assert found["step/.ATTRIBUTES/VARIABLE_VALUE"] == 7
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    names = ("step", "loss", "learning_rate", "embedding_learning_rate")
    lines = [
        [[line[name] for name in names] for line in logged(folder)]
        for _, folder in (unbroken, resumed)
    ]
    assert lines[0] == lines[1]


def _weights(model):
    return [weight.numpy().copy() for weight in model.trainable_variables]


def test_metrics_and_a_loaded_model_are_of_the_average(unbroken, resumed):
    last = _weights(resumed[0].model)
    assert resumed[0].evaluate() == unbroken[0].evaluate()
    # As they were, so that training could go on.
    for found, expected in zip(_weights(resumed[0].model), last, strict=True):
        np.testing.assert_array_equal(found, expected)
    loaded = _weights(load_model(RunDirectory(resumed[1])).model)
    with unbroken[0].train_step.optimizer.evaluated_weights():
        averages = _weights(unbroken[0].model)
    assert len(loaded) == len(averages)
    for found, expected in zip(loaded, averages, strict=True):
        np.testing.assert_array_equal(found, expected)
    moved = [np.abs(a - b).max() for a, b in zip(averages, last, strict=True)]
    assert np.median(moved) > 1e-4


def test_metrics_of_the_average_are_not_those_of_the_last_weights(unbroken):
    trainer, _ = unbroken
    averaged = trainer.evaluate()
    trainer._optimizer.average, average = None, trainer._optimizer.average
    try:
        last = trainer.evaluate()
    finally:
        trainer._optimizer.average = average
    assert averaged.logloss != pytest.approx(last.logloss, rel=1e-5)


def test_a_run_as_short_as_its_warm_up_is_refused(tiny_store, tmp_path):
    config = change(CONFIGURATION, "train", warmup_steps=7)
    with pytest.raises(InputError, match=r"^--warmup_steps=7 must be below"):
        make_trainer(config, tiny_store, tmp_path / "run")
