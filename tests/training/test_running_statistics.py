"""What Dice keeps of batches, on two devices and resumed."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np

from configs.models.din import DINRecipe
from sparsectr.training.devices import make_strategy
from sparsectr.training.load_model import load_model
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from tests.tiny_run import CONFIG, change, make_trainer

# A CPU is divided before anything runs.
SCRIPT = """
import numpy as np
import tensorflow as tf
from sparsectr.training.devices import make_strategy, prepare_process
prepare_process(1, 2)
from sparsectr.training.train_step import TrainStep
from tests.keras_weights import random_model
from tests.make_requests import (
    SCHEMA, SMALL_CONFIG, make_requests, sized_recipe
)

RECIPE = sized_recipe(
    "din", SMALL_CONFIG, attention_activation="dice", head_activation="dice"
)

class Still:
    def apply_gradients(self, pairs):
        list(pairs)

def batch_of(replica):
    batch = make_requests(replica, [7, 3, 0], length=7)
    batch["label"] = np.ones((3, 5), np.float32)
    return {name: tf.constant(value) for name, value in batch.items()}

def statistics(model, strategy):
    values = {
        variable.path.split("/", 1)[1]: [
            copy.numpy()
            for copy in strategy.experimental_local_results(variable.value)
        ]
        for variable in model.non_trainable_weights
    }
    assert len(values) == 6, values
    return values

alone = []
for replica in range(2):
    model = random_model(SCHEMA, RECIPE, 1)
    model(batch_of(replica), training=True)
    alone.append(statistics(model, make_strategy(1)))

strategy = make_strategy(2)
with strategy.scope():
    model = random_model(SCHEMA, RECIPE, 1)
step = TrainStep(model, Still(), strategy, jit_compile=True)
step(
    strategy.experimental_distribute_values_from_function(
        lambda context: batch_of(context.replica_id_in_sync_group)
    )
)
for name, (first, second) in statistics(model, strategy).items():
    np.testing.assert_array_equal(first, second, err_msg=name)
    mean = (alone[0][name][0] + alone[1][name][0]) / 2
    np.testing.assert_allclose(first, mean, 1e-4, 1e-6, err_msg=name)
    assert not np.allclose(first, alone[0][name][0], 1e-3, 1e-4), name
"""


def test_two_devices_share_them(repository: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_are_resumed_and_loaded(tiny_store, tmp_path: pathlib.Path) -> None:
    model = DINRecipe(
        width=8,
        embedding_dim=4,
        attention_activation="dice",
        head_activation="dice",
    )
    config = dataclasses.replace(CONFIG, model=model)
    whole = change(config, "train", max_steps=4)
    trainer = make_trainer(whole, tiny_store, tmp_path / "whole")
    trainer.train()
    part = change(config, "train", max_steps=2)
    make_trainer(part, tiny_store, tmp_path / "part").train()
    run = RunDirectory(tmp_path / "part")
    resumed = Trainer(whole, tiny_store, run, make_strategy(1))
    resumed.train(resume=True)
    loaded = load_model(run).model
    assert len(loaded.non_trainable_weights) == 6
    for weight, *others in zip(
        trainer.model.weights,
        resumed.model.weights,
        loaded.weights,
        strict=True,
    ):
        for other in others:
            np.testing.assert_array_equal(other, weight, err_msg=weight.path)
        if not weight.trainable:
            initial = 0.0 if weight.name == "moving_mean" else 1.0
            assert np.all(weight.numpy() != initial), weight.path
