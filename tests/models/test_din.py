"""DIN against its own equation in NumPy."""

import numpy as np
import pytest

from configs.models.din import DINRecipe
from sparsectr.models.din import ActivationUnit
from tests.keras_weights import random_model
from tests.layer_contract import check_layer
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.seen_before_signal import unexplained_share


def _array(weight) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _unit(unit, q: np.ndarray, k: np.ndarray, statistics=None) -> list:
    """Returns what enters both activations, and the weight, for one pair.

    Args:
        unit: The layer.
        q: The candidate.
        k: The behaviour.
        statistics: Means and variances of Dice; the running ones if `None`.
    """
    # The four parts side by side, as the paper draws them.
    x = np.concatenate([q, k, q - k, q * k])
    x = x @ _array(unit.kernel) + _array(unit.bias)
    found = []
    for place, layer in enumerate((unit.hidden, unit.output_unit)):
        found.append(x)
        if unit.activation == "sigmoid":
            x = _sigmoid(x)
        else:
            dice = unit.functions[place]
            mean, variance = (
                (_array(dice.moving_mean), _array(dice.moving_variance))
                if statistics is None
                else statistics[place]
            )
            share = _sigmoid((x - mean) / np.sqrt(variance + 1e-8))
            x = x * (share + (1.0 - share) * _array(dice.alpha))
        x = x @ _array(layer.kernel) + _array(layer.bias)
    return [*found, x[0]]


@pytest.mark.parametrize("activation", ["sigmoid", "dice"])
@pytest.mark.parametrize("normalize", ["none", "length", "softmax"])
def test_equals_the_equation(normalize: str, activation: str) -> None:
    recipe = sized_recipe(
        "din",
        attention_units_1=11,
        attention_units_2=7,
        attention_activation=activation,
        normalize=normalize,
    )
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    unit = model.activation_unit

    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        valid = behaviors[b, inputs["behavior_time"][b] > 0]
        weights = np.array([_unit(unit, candidates[b, c], k)[2] for k in valid])
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


def test_statistics_of_dice_are_those_of_real_pairs() -> None:
    recipe = sized_recipe(
        "din",
        attention_units_1=11,
        attention_units_2=7,
        attention_activation="dice",
    )
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [LENGTH, 0, 3])
    inputs["candidate_mask"][0, 2:] = False
    _, behaviors, candidates = map(_array, model.embedding(inputs))
    unit = model.activation_unit
    pairs = [
        (candidates[b, c], k)
        for b, c in np.argwhere(inputs["candidate_mask"])
        for k in behaviors[b, inputs["behavior_time"][b] > 0]
    ]
    assert len(pairs) == 2 * LENGTH + 5 * 3
    before = [
        (_array(dice.moving_mean), _array(dice.moving_variance))
        for dice in unit.functions
    ]
    model(inputs, training=True)
    statistics: list[tuple[np.ndarray, np.ndarray]] = []
    for place, dice in enumerate(unit.functions):
        # Those of the second follow from what the first makes of the batch.
        known = [*statistics, (0.0, 1.0), (0.0, 1.0)]
        x = np.array([_unit(unit, *pair, known)[place] for pair in pairs])
        statistics.append((x.mean(axis=0), x.var(axis=0)))
        for moving, old, new in zip(
            (dice.moving_mean, dice.moving_variance),
            before[place],
            statistics[place],
            strict=True,
        ):
            expected = 0.99 * old + 0.01 * new
            np.testing.assert_allclose(moving, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "dice"])
def test_learns_what_is_in_the_history(activation: str) -> None:
    recipe = DINRecipe(
        width=8,
        embedding_dim=8,
        attention_units_1=16,
        attention_units_2=8,
        attention_activation=activation,
    )
    assert unexplained_share(recipe) < 0.7


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`activation` must.*'relu'"):
        ActivationUnit(11, 7, "relu")


def test_published_is_the_form_of_the_paper() -> None:
    recipe = DINRecipe().with_preset("published")
    assert (recipe.attention_activation, recipe.head_activation) == (
        "dice",
        "dice",
    )
    assert recipe.head_units == (200, 80)


@pytest.mark.parametrize("activation", ["sigmoid", "dice"])
def test_activation_unit(activation: str) -> None:
    random = np.random.default_rng(0)
    check_layer(
        ActivationUnit,
        {"hidden_units_1": 11, "hidden_units_2": 7, "activation": activation},
        (
            random.normal(size=(2, 5, 3)).astype("float32"),
            random.normal(size=(2, 13, 3)).astype("float32"),
            random.normal(size=(2, 1, 13)) > 0.0,
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
