"""mixed_bfloat16: float32 logits near those of float32, and exact times."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.model_registry import model_names
from sparsectr.ops.places import places_of_history, places_of_request
from tests.keras_weights import random_model
from tests.make_requests import (
    CONFIG,
    DAY,
    LENGTH,
    NUM_CANDIDATES,
    SCHEMA,
    make_requests,
    sized_recipe,
)

POLICIES = ("float32", "mixed_bfloat16")
CONFIGS = {
    "full": dataclasses.replace(CONFIG, attention="full"),
    **{name: sized_recipe(name) for name in model_names()},
}


def _models(name: str) -> list[Any]:
    """Returns the same model under both policies."""
    return [random_model(SCHEMA, CONFIGS[name], 1, p) for p in POLICIES]


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_stay_near_those_of_float32(name: str) -> None:
    exact, mixed = _models(name)
    inputs = make_requests(2, [LENGTH, 0, 1, 5, 12, 28])
    expected, logits = exact(inputs).logits, mixed(inputs).logits
    assert logits.dtype == tf.float32
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    error = np.abs(logits.numpy() - expected.numpy())
    # bfloat16 rounds to 2^-9 = 0.002; the dozens of roundings on the way
    # add up to a few percent of the logits' spread.
    spread = np.std(expected)
    assert 0 < np.mean(error) < 0.03 * spread
    assert np.max(error) < 0.10 * spread


@pytest.mark.parametrize("name", CONFIGS)
def test_large_dense_feature_keeps_its_digits(name: str) -> None:
    """bfloat16 holds the years 1992 and 2000, and none between them."""
    years = dataclasses.replace(
        SCHEMA.candidate_dense_fields[0],
        transform="identity",
        mean=1996.0,
        scale=2.0,
    )
    schema = dataclasses.replace(SCHEMA, candidate_dense_fields=(years,))
    model = random_model(schema, CONFIGS[name], 1, "mixed_bfloat16")
    inputs = make_requests(3, [5])
    for key in inputs:
        if key.startswith("candidate_"):
            inputs[key] = np.repeat(inputs[key][:, :1], NUM_CANDIDATES, axis=1)
    inputs["candidate_price"] = np.arange(1994, 1999, dtype="float32")[None]
    assert len(np.unique(model(inputs).logits)) == NUM_CANDIDATES


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["sparse_ctr", "full"])
def test_gaps_of_seconds_are_told_apart(name: str, policy: str) -> None:
    """All these times are one and the same number in float32."""
    request_time = 2**28 * 5 + 63
    gaps = [1, 30, 60, 127]
    times = request_time - np.array(gaps)
    assert len({float(np.float32(time)) for time in times}) == 1
    inputs = make_requests(4, [2], length=2)
    inputs = {k: np.repeat(v, len(gaps), axis=0) for k, v in inputs.items()}
    older = np.full(len(gaps), request_time - DAY)
    inputs["behavior_time"] = np.stack([older, times], axis=1)
    inputs["request_time"] = np.full(len(gaps), request_time)
    model = random_model(SCHEMA, CONFIGS[name], 1, policy)
    logits = model(inputs).logits.numpy()
    for column in logits.T:
        assert len(np.unique(column)) == len(gaps)


def test_times_and_features_are_those_of_float32() -> None:
    exact, mixed = _models("sparse_ctr")
    inputs = make_requests(5, [LENGTH, 0, 1, 5])
    states = [model.encode_user(inputs) for model in (exact, mixed)]
    assert [state["keys"].dtype for state in states] == [
        tf.float32,
        tf.bfloat16,
    ]
    for name in ("key_time", "key_has_fraction", "key_mask"):
        np.testing.assert_array_equal(states[1][name], states[0][name])
    history = places_of_history(tf.constant(inputs["behavior_time"]))
    rows = tf.zeros((*history.time.shape, CONFIG.width))
    plans, asked = [], []
    for model in (exact, mixed):
        attention = model.blocks[0].attention
        plans.append(attention.plan(history, rows, for_history=True))
        keys = plans[-1].keys
        request = places_of_request(tf.constant(inputs["request_time"]))
        asked.append(attention.relate(request, keys, keys.time.shape[1] + 1))
    for features, others in zip(
        (*(x for x in plans[0].history if isinstance(x, tuple)), asked[0]),
        (*(x for x in plans[1].history if isinstance(x, tuple)), asked[1]),
        strict=True,
    ):
        assert len(features) == 3
        for feature, other in zip(features, others, strict=True):
            assert other.dtype == tf.float32
            np.testing.assert_array_equal(other, feature)
