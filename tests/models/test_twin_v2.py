"""TWIN-V2 against its own equations in NumPy, and as TWIN."""

import dataclasses

import numpy as np
import pytest

from sparsectr.layers.retrieval.consistent_attention import (
    ConsistentAttention,
)
from sparsectr.schema import CategoricalField, Table
from tests import retrieval_signal
from tests.keras_weights import random_model, randomize
from tests.make_requests import (
    DAY,
    HOUR,
    LENGTH,
    SCHEMA,
    make_requests,
    sized_recipe,
)
from tests.reference import retrieval

ACTION = dataclasses.replace(
    SCHEMA,
    tables=(*SCHEMA.tables, Table(name="action", size=4)),
    behavior_fields=(
        *SCHEMA.behavior_fields,
        CategoricalField(name="action", table="action"),
    ),
)

RECIPE = sized_recipe(
    "twin_v2",
    num_recent=13,
    num_retrieved=5,
    max_cluster_size=3,
    category="item",
)


def _requests(schema=ACTION) -> dict:
    inputs = make_requests(2, [LENGTH, 0, 1, 6], schema)
    # Few categories, among them the missing and the unknown one.
    inputs["behavior_item"] %= 5
    return inputs


def _clusters(inputs: dict, b: int) -> list[list[int]]:
    """Returns the columns of each cluster; the schema's clocks show UTC+8."""
    midnight = (inputs["request_time"][b] + 8 * HOUR) // DAY * DAY - 8 * HOUR
    found: dict[object, list[list[int]]] = {}
    for i in np.flatnonzero(inputs["behavior_time"][b]):
        key = (
            inputs["behavior_item"][b, i],
            inputs["behavior_action"][b, i],
        )
        if inputs["behavior_time"][b, i] >= midnight or key[0] < 2:
            key = i
        runs = found.setdefault(key, [[]])
        if len(runs[-1]) == 3:
            runs.append([])
        runs[-1].append(i)
    return [run for runs in found.values() for run in runs]


def test_equals_the_equations() -> None:
    model = random_model(ACTION, RECIPE, 1)
    inputs = _requests()
    user, behaviors, candidates = map(retrieval.array, model.embedding(inputs))
    features = retrieval.array(model.embedding.behavior_features(inputs))
    keys = features[..., : 3 * 17] @ retrieval.array(model.key.kernel)
    beta = retrieval.array(model.cross.scale).repeat([17, 1], axis=0)
    cross = features[..., 3 * 17 :] @ (
        retrieval.array(model.cross.kernel) * beta
    )
    of_gap = retrieval.array(model.gap_cross.kernel) * retrieval.array(
        model.gap_cross.scale
    )
    layer = model.long_attention
    expected, sizes = np.zeros(candidates.shape[:2]), set()
    for b, c in np.ndindex(expected.shape):
        q, clusters = candidates[b, c], _clusters(inputs, b)
        sizes |= {len(run) for run in clusters}
        time = np.array(
            [
                inputs["behavior_time"][b, run].sum() // len(run)
                for run in clusters
            ]
        )
        gaps = retrieval.log_gap_rows(
            model.gap, time.astype(int), inputs["request_time"][b]
        )

        def means(rows: np.ndarray, clusters=clusters) -> np.ndarray:
            found = [rows[run].mean(axis=0) for run in clusters]
            return np.reshape(found, (len(clusters), rows.shape[-1]))

        query = q @ retrieval.array(layer.query.kernel)
        rows = np.concatenate([means(behaviors[b]), gaps], axis=1)
        values = rows @ retrieval.array(layer.value.kernel)
        heads = []
        for h in range(3):
            columns = slice(13 * h, 13 * h + 13)
            alpha = means(keys[b])[:, columns] @ query[columns] / 13**0.5
            alpha += means(cross[b])[:, h] + gaps @ of_gap[:, h]
            alpha += np.log([len(run) for run in clusters])
            best = retrieval.best(alpha, 5)
            heads.append(np.zeros(13))
            if best:
                heads[h] = (
                    retrieval.softmax(alpha[best]) @ values[best, columns]
                )
        long = np.concatenate(heads)
        long = long @ retrieval.array(layer.output_projection.kernel)
        valid = np.flatnonzero(inputs["behavior_time"][b])
        short = retrieval.short_interest(model, q, behaviors[b, valid])
        x = np.concatenate([short, long, q, user[b]])
        expected[b, c] = retrieval.mlp_head(x, model.head)
    assert sizes >= {1, 2, 3}
    logits = model(inputs).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_cluster_of_copies_weighs_what_the_copies_would() -> None:
    """The golden test: ln n in the score is attention over n copies."""
    random = np.random.default_rng(0)
    counts = np.array([[4, 1, 2]])
    candidates = random.normal(size=(1, 5, 14)).astype("float32")
    keys = random.normal(size=(1, 3, 14)).astype("float32")
    bias = random.normal(size=(1, 7, 3)).astype("float32")
    rows = random.normal(size=(1, 3, 11)).astype("float32")
    layer = ConsistentAttention(7, 13)
    layer.build(candidates.shape, rows_shape=rows.shape)
    randomize(layer, 1)
    weighted = layer(
        candidates,
        keys,
        bias + np.log(counts).astype("float32")[:, None],
        rows,
        counts > 0,
    )
    each = np.repeat(np.arange(3), counts[0])
    copied = layer(
        candidates,
        keys[:, each],
        bias[..., each],
        rows[:, each],
        np.ones((1, 7), bool),
    )
    np.testing.assert_allclose(weighted, copied, rtol=1e-5, atol=1e-6)


def test_the_state_holds_for_the_day() -> None:
    model = random_model(ACTION, RECIPE, 1)
    inputs = _requests()
    # Noon by the clocks of UTC+8, some hours after the newest.
    inputs["request_time"] += 3 * HOUR
    noon = inputs["request_time"] // DAY * DAY + 4 * HOUR
    shift = noon - inputs["request_time"]
    inputs["request_time"] = noon
    inputs["behavior_time"] = np.where(
        inputs["behavior_time"] > 0, inputs["behavior_time"] + shift[:, None], 0
    )
    state = model.encode_user(inputs)
    for later, is_same in ((11 * HOUR, True), (13 * HOUR, False)):
        moved = {**inputs, "request_time": noon + later}
        other = model.encode_user(moved)
        equal = [np.array_equal(state[name], other[name]) for name in state]
        assert all(equal) == is_same
    assert RECIPE.state_spec(ACTION).bound_to_request_time


def test_clusters_of_one_are_twin() -> None:
    recipe = dataclasses.replace(RECIPE, max_cluster_size=1)
    clustered = random_model(ACTION, recipe, 1)
    single = sized_recipe("twin", num_recent=13, num_retrieved=5).build(ACTION)
    single.set_weights(clustered.get_weights())
    inputs = _requests()
    np.testing.assert_allclose(
        clustered(inputs).logits, single(inputs).logits, rtol=1e-5, atol=1e-5
    )


def test_learns_what_only_a_search_sees() -> None:
    sizes = {**retrieval_signal.SIZES, "category": "shop"}
    recipe = dataclasses.replace(RECIPE, **sizes)
    assert retrieval_signal.loss_of_new_requests(recipe) < 0.2


def test_the_gap_is_read_where_clusters_are_made() -> None:
    with pytest.raises(ValueError, match="`gap_to_request` must be encode_use"):
        sized_recipe("twin_v2", gap_to_request="score")
