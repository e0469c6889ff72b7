"""STCA against its own equations in NumPy."""

from typing import Any

import numpy as np
import pytest

from configs.models.stca import STCARecipe
from sparsectr.models.stca import TargetToHistory
from tests.keras_weights import random_model
from tests.layer_contract import check_layer
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.seen_before_signal import unexplained_share


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _swiglu(layer: Any, x: np.ndarray) -> np.ndarray:
    gate = x @ _array(layer.gate.kernel)
    gate = gate / (1.0 + np.exp(-gate))
    return (gate * (x @ _array(layer.up.kernel))) @ _array(layer.down.kernel)


def _norm(layer: Any, x: np.ndarray) -> np.ndarray:
    centred = (x - x.mean()) / np.sqrt(x.var() + layer.epsilon)
    return centred * _array(layer.gamma) + _array(layer.beta)


def _read(layer: Any, query: np.ndarray, rows: list[np.ndarray]) -> np.ndarray:
    """One candidate, head by head and behaviour by behaviour."""
    width, heads = len(query), layer.num_heads
    size = width // heads
    kernels = {
        name: _array(getattr(layer, f"{name}_projection").kernel)
        for name in ("query", "key", "value", "output")
    }
    outputs = np.zeros(width)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        q = query @ kernels["query"][:, own]
        logits = [q @ (x @ kernels["key"][:, own]) / size**0.5 for x in rows]
        weights = np.exp(np.array(logits) - max(logits, default=0.0))
        for weight, x in zip(weights / weights.sum(), rows, strict=True):
            outputs[own] += weight * (x @ kernels["value"][:, own])
    return outputs @ kernels["output"]


def _logit(
    model: Any, candidate: np.ndarray, history: list[Any], user: np.ndarray
) -> float:
    read: list[np.ndarray] = []
    mixed = candidate
    for place, attention in enumerate(model.attentions):
        query = _norm(
            model.query_norms[place],
            _swiglu(model.query_networks[place], mixed),
        )
        rows = [
            _norm(
                model.history_norms[place],
                _swiglu(model.history_networks[place], x),
            )
            for x in history
        ]
        read.append(_read(attention, query, rows))
        known = np.concatenate([*read, candidate])
        mixed = known @ _array(model.mixers[place].kernel)
    output = _swiglu(model.output_network, mixed)
    hidden, last = model.head.hidden[0], model.head.output_unit
    x = np.concatenate([output, candidate, user])
    x = x @ _array(hidden.kernel) + _array(hidden.bias)
    x = np.maximum(x, 0.0) @ _array(last.kernel)
    return float(x[0] + _array(last.bias)[0])


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("reads_gap", [False, True])
def test_equals_the_equations(num_layers: int, reads_gap: bool) -> None:
    recipe = sized_recipe("stca", num_layers=num_layers, reads_gap=reads_gap)
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [7, 0, 1], length=11)
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        history = []
        for i, time in enumerate(inputs["behavior_time"][b]):
            if time == 0:
                continue
            x = behaviors[b, i]
            if reads_gap:
                gap = int(inputs["request_time"][b] - time)
                row = _array(model.gap.table.rows)[gap.bit_length()]
                x = x + row @ _array(model.gap_projection.kernel)
            history.append(x)
        expected[b, c] = _logit(model, candidates[b, c], history, user[b])
    logits = model(inputs).logits
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * scale)


def test_keys_and_values_are_made_for_many_candidates_alone() -> None:
    recipe = STCARecipe(width=32, num_heads=8)
    assert [recipe.forms_keys(n) for n in (1, 4, 5, None)] == [
        False,
        False,
        True,
        True,
    ]
    model = random_model(SCHEMA, sized_recipe("stca"), 1)
    layer = model.attentions[0]
    random = np.random.default_rng(0)
    query = random.normal(size=(2, 5, 39)).astype("float32")
    rows = random.normal(size=(2, 11, 39)).astype("float32")
    mask = np.arange(11) >= np.array([[3], [11]])
    found = layer(query, rows, mask)
    expected = layer(query, rows, mask, forms_keys=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.all(found[1] == 0)
    assert np.all(expected[1] == 0)


@pytest.mark.parametrize("forms_keys", [False, True])
def test_target_to_history(forms_keys: bool) -> None:
    random = np.random.default_rng(0)
    check_layer(
        TargetToHistory,
        {"num_heads": 3},
        (
            random.normal(size=(2, 5, 21)).astype("float32"),
            random.normal(size=(2, 11, 21)).astype("float32"),
            random.normal(size=(2, 11)) > 0.0,
        ),
        call_kwargs={"forms_keys": forms_keys},
        expected_output_shape=(2, 5, 21),
    )


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`num_heads` must divide width=32"):
        STCARecipe(num_heads=7)
    with pytest.raises(ValueError, match=r"must divide the width 32.*=7"):
        TargetToHistory(7).build((None, None, 32))


def test_trace_holds_the_weights_of_behaviors() -> None:
    model = random_model(SCHEMA, sized_recipe("stca"), 1)
    inputs = make_requests(2, [LENGTH, 3])
    trace = model(inputs, trace=True).trace
    assert list(trace) == ["attention_0/weights", "attention_1/weights"]
    for weights in trace.values():
        assert weights.shape == (2, 5, 3, LENGTH)
        np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-5)
        assert np.all(weights[1, ..., :-3] == 0)


def test_learns_what_is_in_the_history() -> None:
    recipe = STCARecipe(width=8, embedding_dim=8, num_heads=2)
    share = unexplained_share(recipe, num_steps=250, learning_rate=0.01)
    assert share < 0.7
