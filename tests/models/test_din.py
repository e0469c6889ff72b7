"""DIN against its own equation in NumPy."""

import numpy as np
import pytest

from sparsectr.models.din import ActivationUnit
from tests.keras_weights import random_model
from tests.layer_contract import check_layer
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe


def _array(weight) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("normalize", ["none", "length", "softmax"])
def test_equals_the_equation(normalize: str) -> None:
    recipe = sized_recipe(
        "din",
        attention_units_1=11,
        attention_units_2=7,
        normalize=normalize,
    )
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    unit = model.activation_unit

    def weight_of(q: np.ndarray, k: np.ndarray) -> float:
        # The four parts side by side, as the paper draws them.
        x = np.concatenate([q, k, q - k, q * k])
        x = _sigmoid(x @ _array(unit.kernel) + _array(unit.bias))
        for layer in (unit.hidden, unit.output_unit):
            x = x @ _array(layer.kernel) + _array(layer.bias)
            x = _sigmoid(x) if layer is unit.hidden else x
        return x[0]

    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        valid = behaviors[b, inputs["behavior_time"][b] > 0]
        weights = np.array([weight_of(candidates[b, c], k) for k in valid])
        if normalize == "softmax" and len(weights):
            weights = np.exp(weights - weights.max())
            weights /= weights.sum()
        elif normalize == "length":
            weights = weights / max(len(weights), 1)
        interest = weights @ valid if len(valid) else 0.0 * candidates[b, c]
        x = np.concatenate([interest, candidates[b, c], user[b]])
        hidden, last = model.head.hidden[0], model.head.output_unit
        x = x @ _array(hidden.kernel) + _array(hidden.bias)
        x = np.maximum(x, 0.0) @ _array(last.kernel)
        expected[b, c] = x[0] + _array(last.bias)[0]
    logits = model(inputs).logits
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * scale)


def test_activation_unit() -> None:
    random = np.random.default_rng(0)
    check_layer(
        ActivationUnit,
        {"hidden_units_1": 11, "hidden_units_2": 7},
        (
            random.normal(size=(2, 5, 3)).astype("float32"),
            random.normal(size=(2, 13, 3)).astype("float32"),
        ),
        expected_output_shape=(2, 5, 13),
    )


def test_the_trace_holds_the_weights_of_behaviors() -> None:
    model = random_model(SCHEMA, sized_recipe("din"), 1)
    inputs = make_requests(2, [LENGTH, 3])
    weights = model(inputs, trace=True).trace["weights"].numpy()
    is_real = inputs["behavior_time"] > 0
    assert weights.shape == (2, 5, LENGTH)
    assert np.all(weights[1][:, ~is_real[1]] == 0)
    assert np.all(weights[:, :, -3:] != 0)
