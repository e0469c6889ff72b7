"""Models that read times as fields.

That padding, batch-mates and the other candidates change nothing, and what a
state is, `test_contract.py` checks for every model with all time fields.
"""

import dataclasses

import numpy as np
import pytest

from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import model_names, recipe_class
from sparsectr.time_fields import TIME_FIELDS
from sparsectr.time_zone import TimeZone
from tests.keras_weights import random_model
from tests.make_requests import (
    DAY,
    LENGTH,
    SMALL_CONFIG,
    TIMED_SCHEMA,
    WEEK,
    make_requests,
    sized_recipe,
)

NUM_VALID = [LENGTH, 0, 1, 6]
RECIPES = {name: sized_recipe(name, SMALL_CONFIG) for name in model_names()}
RECIPES["din_in_score"] = sized_recipe(
    "din", SMALL_CONFIG, gap_to_request="score"
)
COPENHAGEN = TimeZone.named("Europe/Copenhagen")
CHANGE = 1_698_541_200
"""2023-10-29 01:00 UTC, when clocks there are put back."""

BY_DEFAULT = ("sparse_ctr", "din", "mean_pooling", "din_in_score")

every_model = pytest.mark.parametrize(
    "name",
    [
        name
        if name in BY_DEFAULT
        else pytest.param(name, marks=pytest.mark.slow)
        for name in RECIPES
    ],
)


def _inputs(newest: int) -> dict:
    """Requests of one second, and histories of less than a week."""
    inputs = make_requests(2, NUM_VALID)
    age = inputs["request_time"][:, None] - inputs["behavior_time"]
    time = newest - np.minimum(age, WEEK - 1)
    padding = inputs["behavior_time"] == 0
    inputs["behavior_time"] = np.where(padding, 0, np.sort(time, axis=1))
    inputs["request_time"] = np.full_like(inputs["request_time"], newest)
    return inputs


def _moved(inputs: dict, seconds: int) -> dict:
    times = inputs["behavior_time"]
    return {
        **inputs,
        "behavior_time": np.where(times > 0, times + seconds, 0),
        "request_time": inputs["request_time"] + seconds,
    }


@every_model
def test_whole_weeks_change_nothing_but_across_a_change_of_clocks(
    name: str,
) -> None:
    schema = dataclasses.replace(TIMED_SCHEMA, time_zone=COPENHAGEN)
    model = random_model(schema, RECIPES[name], 1)
    inputs = _inputs(CHANGE - 1)
    logits = model(inputs).logits
    earlier = model(_moved(inputs, -20 * WEEK)).logits
    np.testing.assert_array_equal(earlier, logits)
    later = model(_moved(inputs, 3 * WEEK)).logits
    assert np.max(np.abs(later - logits)) > 0.01
    # By the clock, nothing has changed.
    same = model(_moved(inputs, 3 * WEEK + 3600)).logits
    np.testing.assert_array_equal(same, logits)


@every_model
@pytest.mark.parametrize("field", TIME_FIELDS)
def test_every_time_field_is_read(name: str, field: str) -> None:
    """Its table moves the logits, and nothing else of it does."""
    schema = dataclasses.replace(TIMED_SCHEMA, time_fields=(field,))
    model = random_model(schema, RECIPES[name], 1)
    inputs = make_requests(2, NUM_VALID)
    logits = model(inputs).logits.numpy()
    model.embedding.tables[TIME_FIELDS[field].table].rows.assign_add(
        np.ones((TIME_FIELDS[field].num_rows, SMALL_CONFIG.embedding_dim))
    )
    moved = np.abs(model(inputs).logits.numpy() - logits).max(axis=1)
    # All but the request without a history.
    assert np.all(moved[[0, 2, 3]] > 1e-3)
    assert (moved[1] > 1e-3) == field.startswith("request_")


def test_din_reads_gaps_alike_in_both_places() -> None:
    """A projection of fields side by side is the sum of their projections."""
    early = random_model(TIMED_SCHEMA, RECIPES["din"], 1)
    late = random_model(TIMED_SCHEMA, RECIPES["din_in_score"], 2)
    weights = {weight.path: weight for weight in early.weights}
    dim = SMALL_CONFIG.embedding_dim
    kernel = early.embedding.behavior_projection.kernel.numpy()
    # Behind the rows of the gap are those of numbers.
    end = len(kernel) - len(TIMED_SCHEMA.behavior_dense_fields)
    gap = slice(end - dim, end)
    for weight in late.weights:
        name = weight.path
        if name.endswith("gap_projection/kernel"):
            weight.assign(kernel[gap])
        elif name.endswith("behavior_projection/kernel"):
            weight.assign(np.delete(kernel, gap, axis=0))
        else:
            weight.assign(weights[name])
    inputs = make_requests(3, NUM_VALID)
    np.testing.assert_allclose(
        late(inputs).logits, early(inputs).logits, rtol=1e-5, atol=1e-5
    )


@every_model
def test_a_state_is_reusable_without_gaps_to_the_request(name: str) -> None:
    recipe = RECIPES[name]
    spec = recipe.state_spec(TIMED_SCHEMA)
    assert spec.bound_to_request_time == (name != "din_in_score")
    names = tuple(n for n in TIME_FIELDS if n != "gap_to_request")
    schema = dataclasses.replace(TIMED_SCHEMA, time_fields=names)
    assert not recipe.state_spec(schema).bound_to_request_time
    model = random_model(schema, recipe, 1)
    inputs = make_requests(2, NUM_VALID)
    history = {k: v for k, v in inputs.items() if k[:4] in ("user", "beha")}
    later = {**inputs, "request_time": inputs["request_time"] + DAY + 7201}
    found = model.score(model.encode_user(history), later).logits
    np.testing.assert_allclose(found, model(later).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sparse_ctr", "mean_pooling"])
def test_a_state_without_behaviors_cannot_read_gaps_in_score(
    name: str,
) -> None:
    recipe: type[ModelRecipe] = recipe_class(name)
    message = (
        f"`gap_to_request` must be encode_user for {name}, whose state does "
        "not hold the behaviors with their times. Received: "
        "gap_to_request='score'"
    )
    with pytest.raises(ValueError, match=message):
        recipe(gap_to_request="score")
