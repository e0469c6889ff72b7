"""CAN against its own equation in NumPy."""

import dataclasses

import numpy as np
import pytest

from configs.models.can import CANRecipe, Pair
from sparsectr.models.can import co_action
from tests.keras_weights import random_model
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.seen_before_signal import unexplained_share


def _array(weight) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _co_action(induction, x, hidden: int, last: int, orders: int) -> np.ndarray:
    """One candidate and one behaviour, order by order."""
    first = induction[: len(x) * hidden].reshape(len(x), hidden)
    second = induction[len(x) * hidden :].reshape(hidden, last)
    found: list[float] = []
    for order in range(1, orders + 1):
        h = np.tanh(x**order @ first)
        found += [*h, *(h @ second)]
    return np.array(found)


def test_one_pair_and_one_behavior_by_hand() -> None:
    """W1 takes the first two numbers; W2 adds those of every second layer."""
    x = np.zeros(16)
    x[:2] = 0.5, -2.0
    first = np.zeros((16, 8))
    first[0, 0], first[1, 1], first[0, 2], first[1, 2] = 1.0, 1.0, 2.0, 0.5
    second = np.zeros((8, 4))
    second[0, 0] = second[1, 0] = second[2, 1] = 1.0
    second[1, 3] = -3.0
    tanh = np.tanh
    expected: list[float] = []
    for a, b in ((0.5, -2.0), (0.25, 4.0), (0.125, -8.0)):
        h = [tanh(a), tanh(b), tanh(2 * a + 0.5 * b)]
        expected += [*h, 0, 0, 0, 0, 0]
        expected += [h[0] + h[1], h[2], 0.0, -3.0 * h[1]]
    assert len(expected) == 36
    induction = np.concatenate([first.ravel(), second.ravel()])
    assert len(induction) == CANRecipe().induction_width == 160
    found = co_action(
        induction[None, None].astype("float32"),
        x[None, None].astype("float32"),
        8,
        4,
        3,
    )
    assert CANRecipe().pair_width == 36
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_equals_the_equation(pool: str) -> None:
    recipe = sized_recipe(
        "can",
        pool=pool,
        feed_width=11,
        co_action_units_1=7,
        co_action_units_2=3,
        num_orders=2,
    )
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    tables = {
        name: _array(table.rows) for name, table in model.own_tables.items()
    }
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        valid = inputs["behavior_time"][b] > 0
        share = 1.0 if pool == "sum" else 1.0 / max(valid.sum(), 1)
        x = [candidates[b, c]]
        for name in ("brand", "item"):
            own = tables[f"induction_{name}"][inputs[f"candidate_{name}"][b, c]]
            total = np.zeros(2 * (7 + 3))
            for i in inputs[f"behavior_{name}"][b, valid]:
                total += _co_action(own, tables[f"feed_{name}"][i], 7, 3, 2)
            x.append(share * total)
        x += [share * behaviors[b, valid].sum(axis=0), user[b]]
        hidden, last = model.head.hidden[0], model.head.output_unit
        h = np.concatenate(x) @ _array(hidden.kernel) + _array(hidden.bias)
        h = np.maximum(h, 0.0) @ _array(last.kernel)
        expected[b, c] = h[0] + _array(last.bias)[0]
    logits = model(inputs).logits
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * scale)


def test_pairs_are_the_ids_that_share_a_table() -> None:
    recipe = CANRecipe()
    assert recipe.pairs(SCHEMA) == (
        Pair("brand", "brand", "brand"),
        Pair("item", "item", "item"),
    )
    tables = recipe.tables(SCHEMA)[-4:]
    assert [(t.name, t.width, t.ids_of) for t in tables] == [
        ("induction_brand", 160, "brand"),
        ("feed_brand", 16, "brand"),
        ("induction_item", 160, "item"),
        ("feed_item", 16, "item"),
    ]


def test_a_schema_without_a_pair_is_refused() -> None:
    places = tuple(f for f in SCHEMA.candidate_fields if f.name == "place")
    schema = dataclasses.replace(SCHEMA, candidate_fields=places)
    with pytest.raises(
        ValueError, match=r"share.*table.*candidate=\['place'\], behavior=\['i"
    ):
        CANRecipe().build(schema)


def test_trace_holds_the_co_actions() -> None:
    model = random_model(SCHEMA, sized_recipe("can"), 1)
    trace = model(make_requests(2, [LENGTH, 0]), trace=True).trace
    assert {name: tuple(v.shape) for name, v in trace.items()} == {
        "co_action/brand/brand": (2, 5, 36),
        "co_action/item/item": (2, 5, 36),
    }
    assert np.all(trace["co_action/item/item"][1] == 0)


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_learns_what_is_in_the_history(pool: str) -> None:
    recipe = CANRecipe(width=8, embedding_dim=8, pool=pool)
    assert unexplained_share(recipe, num_steps=100) < 0.6
