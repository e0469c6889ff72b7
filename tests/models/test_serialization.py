"""Models come back from their configuration and from `.keras` files."""

import dataclasses
import inspect
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from sparsectr.config import ModelConfig
from sparsectr.models.mean_pooling import MeanPooling
from sparsectr.models.sparse_ctr import SparseCTR
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import SCHEMA, SMALL_CONFIG, make_requests

CONFIGS = {
    "evo": SMALL_CONFIG,
    "full_without_bias": dataclasses.replace(
        SMALL_CONFIG, attention="full", temporal_bias=False, dropout_rate=0.3
    ),
    "mean_pooling": dataclasses.replace(SMALL_CONFIG, name="mean_pooling"),
}

every_model = pytest.mark.parametrize("name", CONFIGS)


@every_model
def test_config_holds_every_argument(name: str) -> None:
    model = random_model(SCHEMA, CONFIGS[name], 1)
    config = model.get_config()
    arguments = set(inspect.signature(type(model).__init__).parameters)
    assert arguments - {"self", "kwargs"} <= set(config)
    for field in arguments & set(dataclasses.asdict(CONFIGS[name])):
        assert config[field] == getattr(CONFIGS[name], field)
    text = json.dumps(config)
    rebuilt = type(model).from_config(json.loads(text))
    assert json.dumps(rebuilt.get_config()) == text
    rebuilt.build()
    rebuilt.set_weights(model.get_weights())
    inputs = make_requests(2, [5, 0, 3], length=5)
    np.testing.assert_array_equal(rebuilt(inputs), model(inputs))


# Keras 3.15 hands its variables to NumPy 2 in the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("has_user", [True, False])
@every_model
def test_keras_file_round_trip(
    name: str, has_user: bool, tmp_path: pathlib.Path
) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    model = random_model(schema, CONFIGS[name], 1)
    inputs = make_requests(2, [5, 0, 3], schema, length=5)
    logits = model(inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.schema == schema
    np.testing.assert_array_equal(loaded(inputs), logits)


@every_model
def test_building_makes_all_weights(name: str) -> None:
    model = random_model(SCHEMA, CONFIGS[name], 1)
    before = [weight.path for weight in model.weights]
    assert len(set(before)) == len(before)
    inputs = make_requests(2, [5, 0, 3], length=5)
    logits = model(inputs)
    assert [weight.path for weight in model.weights] == before
    assert logits.shape == (3, 5)
    shapes = {key: values.shape for key, values in inputs.items()}
    assert tuple(model.compute_output_shape(shapes)) == logits.shape


@every_model
def test_dropout_acts_in_training_alone(name: str) -> None:
    config = dataclasses.replace(CONFIGS[name], dropout_rate=0.5)
    model = random_model(SCHEMA, config, 1)
    inputs = make_requests(2, [5, 0, 3], length=5)
    logits = model(inputs)
    np.testing.assert_array_equal(model(inputs), logits)
    assert np.any(model(inputs, training=True) != logits)


def test_rejects_a_model_without_blocks() -> None:
    with pytest.raises(ValueError, match="`num_blocks` must be at least 1"):
        SparseCTR(SCHEMA, num_blocks=0)


def test_defaults_are_those_of_the_configuration() -> None:
    config = ModelConfig()
    for model_class in (SparseCTR, MeanPooling):
        parameters: Any = inspect.signature(model_class).parameters
        defaults = {
            name: parameter.default
            for name, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        shared = set(defaults) & set(dataclasses.asdict(config))
        assert len(shared) >= 4
        for name in shared:
            assert defaults[name] == getattr(config, name), name
