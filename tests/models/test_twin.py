"""TWIN against its own equations in NumPy."""

import dataclasses

import numpy as np
import pytest

from sparsectr.errors import InputError
from sparsectr.recipes.cross_features import behavior_columns
from tests import retrieval_signal
from tests.keras_weights import random_model
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    TIMED_SCHEMA,
    make_requests,
    sized_recipe,
)
from tests.reference import retrieval

RECIPE = sized_recipe("twin", num_recent=13, num_retrieved=7)


@pytest.mark.parametrize("schema", [SCHEMA, TIMED_SCHEMA])
def test_equals_the_equations(schema) -> None:
    model = random_model(schema, RECIPE, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = map(retrieval.array, model.embedding(inputs))
    features = retrieval.array(model.embedding.behavior_features(inputs))
    # Item, brand and tags; then all that candidates do not have.
    inherent, cross = features[..., : 3 * 17], features[..., 3 * 17 :]
    numbers = np.split(cross, np.arange(1, cross.shape[-1] // 17 + 1) * 17, -1)
    if cross.shape[-1] == 1:
        numbers = [cross]
    layer, starts = model.long_attention, np.arange(len(numbers)) * 17
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        valid = np.flatnonzero(inputs["behavior_time"][b])
        q = candidates[b, c]
        gaps = retrieval.log_gap_rows(
            model.gap,
            inputs["behavior_time"][b, valid],
            inputs["request_time"][b],
        )
        keys = inherent[b, valid] @ retrieval.array(model.key.kernel)
        query = q @ retrieval.array(layer.query.kernel)
        rows = np.concatenate([behaviors[b, valid], gaps], axis=1)
        values = rows @ retrieval.array(layer.value.kernel)
        heads = []
        for h in range(3):
            columns = slice(13 * h, 13 * h + 13)
            alpha = keys[:, columns] @ query[columns] / 13**0.5
            for part, start, beta in zip(
                numbers, starts, retrieval.array(model.cross.scale), strict=True
            ):
                w = retrieval.array(model.cross.kernel)[start:, h]
                alpha += beta[h] * part[b, valid] @ w[: part.shape[-1]]
            w = retrieval.array(model.gap_cross.kernel)[:, h]
            alpha += gaps @ w * retrieval.array(model.gap_cross.scale)[0, h]
            best = retrieval.best(alpha, 7)
            heads.append(np.zeros(13))
            if best:
                weights = retrieval.softmax(alpha[best])
                heads[h] = weights @ values[best, columns]
        long = np.concatenate(heads)
        long = long @ retrieval.array(layer.output_projection.kernel)
        short = retrieval.short_interest(model, q, behaviors[b, valid])
        x = np.concatenate([short, long, q, user[b]])
        expected[b, c] = retrieval.mlp_head(x, model.head)
    logits = model(inputs).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_padding_is_never_retrieved() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [5, 0, 12])
    retrieved = model(inputs, trace=True).trace["long/retrieved"].numpy()
    assert retrieved.shape == (3, 3, 5, 7)
    for row, count in zip(retrieved, [5, 0, 12], strict=True):
        assert np.all(np.sum(row >= 0, axis=-1) == min(count, 7))
        assert np.all(row[row >= 0] >= LENGTH - count)
    # Heads and candidates find their own.
    assert len({tuple(found) for found in retrieved[2].reshape(-1, 7)}) > 10


def test_fields_are_of_the_item_or_of_the_event() -> None:
    columns = behavior_columns(TIMED_SCHEMA, 17, has_gap=True)
    assert columns.inherent == (
        ("item", 0, 17),
        ("brand", 17, 17),
        ("tags", 34, 17),
    )
    assert columns.cross == (
        ("behavior_hour", 51, 17),
        ("behavior_weekday", 68, 17),
        ("behavior_gap", 85, 17),
        ("gap_to_request", 102, 17),
        ("watched", 119, 1),
    )
    # A number that candidates have too is the item's.
    schema = dataclasses.replace(
        SCHEMA, candidate_dense_fields=SCHEMA.behavior_dense_fields
    )
    columns = behavior_columns(schema, 17, has_gap=False)
    assert columns.cross == ()
    assert columns.inherent[-1] == ("watched", 51, 1)


def test_a_schema_without_cross_features_has_the_gap_alone() -> None:
    schema = dataclasses.replace(SCHEMA, behavior_dense_fields=())
    model = random_model(schema, RECIPE, 1)
    assert model.cross is None
    inputs = make_requests(2, [LENGTH, 0, 6], schema)
    assert "cross" not in model.encode_user(inputs)
    assert np.all(np.isfinite(model(inputs).logits))


def test_a_schema_without_shared_fields_is_refused() -> None:
    schema = dataclasses.replace(
        SCHEMA,
        behavior_fields=SCHEMA.behavior_fields[:1],
        candidate_fields=SCHEMA.candidate_fields[:1],
    )
    with pytest.raises(InputError, match="twin compares candidates with beh"):
        RECIPE.build(schema)


def test_learns_what_only_a_search_sees() -> None:
    recipe = dataclasses.replace(RECIPE, **retrieval_signal.SIZES)
    assert retrieval_signal.loss_of_new_requests(recipe) < 0.2
