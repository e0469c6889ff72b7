"""Encoding a user once and scoring later equals the whole pass."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.config import SPARSITY_PRESETS, ModelConfig
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    SMALL_CONFIG,
    make_requests,
    subset,
)

NUM_VALID = [LENGTH, 0, 1, 6]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

CONFIGS = {
    "evo": SMALL_CONFIG,
    "full": dataclasses.replace(SMALL_CONFIG, attention="full"),
}

every_attention = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        name: random_model(SCHEMA, config, 1)
        for name, config in CONFIGS.items()
    }


def _split(inputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what is known before a request, and the request."""
    user = {k: v for k, v in inputs.items() if k[:4] in ("user", "beha")}
    request = {k: v for k, v in inputs.items() if k not in user}
    return user, request


def _signature(inputs: dict[str, Any]) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None] * values.ndim, values.dtype, name=name)
        for name, values in inputs.items()
    }


@every_attention
def test_score_of_the_state_equals_the_call(name: str, models: dict) -> None:
    inputs = make_requests(2, NUM_VALID)
    user, request = _split(inputs)
    state = models[name].encode_user(user)
    logits = models[name](inputs)
    np.testing.assert_allclose(
        models[name].score(state, request), logits, **TOLERANCE
    )
    # One state serves any number of candidates.
    for columns in ([1], [4, 2, 0]):
        found = models[name].score(
            state, subset(request, "candidate_", columns)
        )
        expected = logits.numpy()[:, columns]
        np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_state_without_user_fields() -> None:
    schema = without_user_fields(SCHEMA)
    model = random_model(schema, SMALL_CONFIG, 1)
    inputs = make_requests(2, NUM_VALID, schema)
    user, request = _split(inputs)
    state = model.encode_user(user)
    assert "user" not in state
    assert not np.any(state["key_mask"][:, -1])
    np.testing.assert_allclose(
        model.score(state, request), model(inputs), **TOLERANCE
    )


@pytest.mark.parametrize("length", [1, 3, 29, 101])
def test_size_of_the_state_does_not_grow(length: int, models: dict) -> None:
    config = SMALL_CONFIG
    state = models["evo"].encode_user(make_requests(3, [length], length=length))
    keys = config.num_chunks * (1 + config.num_transition)
    keys += config.num_local + 1
    shapes = {name: tuple(array.shape) for name, array in state.items()}
    assert shapes == {
        "keys": (1, config.num_blocks, keys, config.width),
        "values": (1, config.num_blocks, keys, config.width),
        "key_time": (1, keys - 1),
        "key_mask": (1, keys),
        "user": (1, 3 * config.embedding_dim),
    }
    assert state["key_time"].dtype == tf.int64


@pytest.mark.parametrize(
    ("preset", "keys"),
    [
        ("sparsity-1", 8 + 8 * 1 + 2 + 1),
        ("sparsity-2", 16 + 16 * 2 + 5 + 1),
        ("sparsity-3", 16 + 16 * 3 + 10 + 1),
        ("sparsity-4", 32 + 32 * 4 + 20 + 1),
    ],
)
def test_presets_have_the_papers_key_counts(preset: str, keys: int) -> None:
    assert len(SPARSITY_PRESETS) == 4
    config = ModelConfig(
        width=4, embedding_dim=2, num_heads=2, num_blocks=1
    ).with_preset(preset)
    model = random_model(SCHEMA, config)
    state = model.encode_user(make_requests(4, [5, 0], length=5))
    assert tuple(state["keys"].shape) == (2, 1, keys, 4)
    assert tuple(state["key_time"].shape) == (2, keys - 1)


@every_attention
def test_dynamic_shapes_equal_eager(name: str, models: dict) -> None:
    """Batch, history and candidates of any size, from two graphs."""
    model = models[name]
    user, request = _split(make_requests(0, [3]))
    encode = tf.function(
        lambda user: model.encode_user(user),
        input_signature=[_signature(user)],
    )
    state = encode.get_concrete_function().structured_outputs
    state_signature = {
        k: tf.TensorSpec(v.shape, v.dtype) for k, v in state.items()
    }
    score = tf.function(
        lambda state, request: model.score(state, request),
        input_signature=[state_signature, _signature(request)],
    )
    for length, num_valid, num_candidates in (
        (LENGTH, NUM_VALID, 5),
        (1, [1, 0, 1], 1),  # shorter than chunks and window
        (0, [0, 0, 0], 2),
    ):
        inputs = make_requests(
            5, num_valid, length=length, num_candidates=num_candidates
        )
        expected = model(inputs)
        assert expected.shape == (len(num_valid), num_candidates)
        inputs = {k: tf.constant(v) for k, v in inputs.items()}
        user, request = _split(inputs)
        logits = score(encode(user), request)
        np.testing.assert_allclose(logits, expected, **TOLERANCE)


@every_attention
def test_no_column_equals_a_column_of_padding(name: str, models: dict) -> None:
    inputs = make_requests(6, [0, 0], length=1)
    empty = {k: v[:, :0] if k[:4] == "beha" else v for k, v in inputs.items()}
    np.testing.assert_allclose(
        models[name](empty), models[name](inputs), **TOLERANCE
    )
