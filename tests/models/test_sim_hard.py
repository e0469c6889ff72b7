"""SIM with hard search against its own equations in NumPy."""

import dataclasses
import re

import numpy as np
import pytest

from sparsectr.errors import InputError
from sparsectr.schema import CategoricalField
from tests import retrieval_signal
from tests.keras_weights import random_model
from tests.make_requests import (
    DAY,
    LENGTH,
    SCHEMA,
    make_requests,
    sized_recipe,
)
from tests.reference import retrieval

RECIPE = sized_recipe(
    "sim_hard", num_recent=13, num_retrieved=3, category="item"
)

DAYS = np.array([0, 1, 6, 7, 8, 29, 30, 31, 200, 364, 365, 366, 1000])
BUCKETS = np.array([1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5])


def _requests() -> dict:
    """Histories of few items, each of a bucket of its own and at its edge."""
    inputs = make_requests(2, [13, 0, 1, 6], length=13)
    valid = inputs["behavior_time"] > 0
    ago = np.sort(DAYS)[::-1] * DAY + 1
    ago[np.isin(ago // DAY, [1, 7, 30, 365])] -= 1
    time = inputs["request_time"][:, None] - ago
    inputs["behavior_time"] = np.where(valid, time, 0)
    inputs["behavior_item"] = (inputs["behavior_item"] % 4) * valid
    inputs["candidate_item"] = np.tile(np.arange(5, dtype="int32"), (4, 1))
    return inputs


def test_equals_the_equations() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = _requests()
    user, behaviors, candidates = map(retrieval.array, model.embedding(inputs))
    table = retrieval.array(model.gap.table.rows)
    expected = np.zeros(candidates.shape[:2])
    num_found = set()
    for b, c in np.ndindex(expected.shape):
        valid = np.flatnonzero(inputs["behavior_time"][b])
        q, category = candidates[b, c], inputs["candidate_item"][b, c]
        found = [
            i
            for i in valid
            if inputs["behavior_item"][b, i] == category and category >= 2
        ][-3:]
        num_found.add(len(found))
        gaps = table[BUCKETS[::-1]]
        rows = np.concatenate([behaviors[b], gaps], axis=1)[found]
        long = retrieval.target_attention(q, rows, model.long_attention)
        assert len(found) or np.all(long == 0.0)
        short = retrieval.short_interest(model, q, behaviors[b, valid])
        x = np.concatenate([short, long, q, user[b]])
        expected[b, c] = retrieval.mlp_head(x, model.head)
    assert num_found >= {0, 1, 3}
    logits = model(inputs).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_no_match_is_exactly_no_interest() -> None:
    """Then neither the search's weights nor older behaviors say a thing."""
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [LENGTH, 7])
    # Missing, out of vocabulary, in no history, outside the table.
    inputs["behavior_item"] %= 5
    inputs["candidate_item"][:] = [0, 1, 7, 23, -1]
    trace = model(inputs, trace=True).trace
    assert np.all(trace["long/retrieved"] == -1)
    assert np.all(trace["long/weights"] == 0.0)
    logits = model(inputs).logits.numpy()
    value = model.long_attention.value.kernel
    value.assign(100.0 * value)
    np.testing.assert_array_equal(model(inputs).logits, logits)


def test_learns_what_only_a_search_sees() -> None:
    sizes = {**retrieval_signal.SIZES, "category": "shop"}
    recipe = dataclasses.replace(RECIPE, **sizes)
    assert retrieval_signal.loss_of_new_requests(recipe) < 0.2


def _fields(recipe, *shared: str) -> tuple[str, str]:
    """Returns the fields that a recipe compares where some are shared."""

    def fields(prefix: str) -> tuple[CategoricalField, ...]:
        own = {"place": "behavior", "brand": "candidate"}
        return tuple(
            CategoricalField(name=f"{prefix}{table}", table=table)
            for table in ("item", "brand", "place", "age")
            if table in shared or own.get(table) == prefix
        )

    schema = dataclasses.replace(
        SCHEMA,
        user_fields=(),
        behavior_fields=(*fields("behavior"), SCHEMA.behavior_fields[2]),
        candidate_fields=(*fields("candidate"), SCHEMA.candidate_fields[3]),
    )
    found = recipe.category_fields(schema)
    return found.candidate.name, found.behavior.name


def test_the_category_is_the_only_field_that_it_can_be() -> None:
    recipe = sized_recipe("sim_hard")
    assert _fields(recipe, "item", "brand") == (
        "candidateitem",
        "behavioritem",
    )
    chosen = dataclasses.replace(recipe, category="candidatebrand")
    assert _fields(chosen, "item", "brand") == (
        "candidatebrand",
        "behaviorbrand",
    )


@pytest.mark.parametrize(
    ("shared", "category", "said"),
    [
        (
            ("item", "brand", "age"),
            "",
            "several that it could be: say --model.category, one of "
            "candidateitem, candidatebrand.",
        ),
        (
            ("item",),
            "",
            "none that it could be: say --model.category, one of "
            "candidateitem.",
        ),
        (
            ("item", "brand"),
            "candidateitems",
            "--model.category must be one of candidateitem, candidatebrand, "
            "the ids that candidates and behaviors share. Received: "
            "'candidateitems'. Did you mean 'candidateitem'?",
        ),
    ],
)
def test_a_category_that_is_not_clear(
    shared: tuple[str, ...], category: str, said: str
) -> None:
    recipe = sized_recipe("sim_hard", category=category)
    with pytest.raises(InputError, match=f"{re.escape(said)}$"):
        _fields(recipe, *shared)


@pytest.mark.parametrize("gap_days", [(0, 1), (7, 1), (3, 3)])
def test_days_that_do_not_ascend(gap_days: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`gap_days` must be positive and asc"):
        sized_recipe("sim_hard", gap_days=gap_days)
