"""SIM with soft search against its own equations in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests import retrieval_signal
from tests.keras_weights import random_model
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.reference import retrieval

RECIPE = sized_recipe("sim_soft", num_recent=13, num_retrieved=7)


def test_equals_the_equations() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    scores = model(inputs, training=True)
    user, behaviors, candidates = map(retrieval.array, model.embedding(inputs))
    of_behavior = retrieval.array(model.search_behavior.kernel)
    of_candidate = retrieval.array(model.search_candidate.kernel)
    expected = np.zeros(candidates.shape[:2])
    auxiliary = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        time = inputs["behavior_time"][b]
        rows, time = behaviors[b, time > 0], time[time > 0]
        q = candidates[b, c]
        found = [(of_behavior.T @ e) @ (of_candidate.T @ q) for e in rows]
        gaps = retrieval.log_gap_rows(
            model.gap, time, inputs["request_time"][b]
        )
        best = retrieval.best(np.array(found), 7)
        long = retrieval.target_attention(
            q,
            np.concatenate([rows, gaps], axis=1)[best],
            model.long_attention,
        )
        short = retrieval.short_interest(model, q, rows)
        x = np.concatenate([short, long, q, user[b]])
        expected[b, c] = retrieval.mlp_head(x, model.head)
        pooled = sum(
            (r * e for r, e in zip(found, rows, strict=True)), np.zeros(39)
        )
        x = np.concatenate([pooled, q, user[b]])
        auxiliary[b, c] = retrieval.mlp_head(x, model.search_head)
    np.testing.assert_allclose(scores.logits, expected, rtol=1e-4, atol=1e-4)
    extra = scores.auxiliary["search"]
    assert extra.weight == 1.0
    np.testing.assert_allclose(extra.logits, auxiliary, rtol=1e-4, atol=1e-3)


def test_padding_is_never_retrieved() -> None:
    """Not even where all behaviors score below 0, which padding would."""
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [5, 0, 12])
    behaviors = model.embedding.behaviors(inputs)
    # Each behavior against the mean candidate: one vector, and its opposite.
    weights = np.abs(model.search_behavior.kernel.numpy())
    model.search_behavior.kernel.assign(weights)
    model.search_candidate.kernel.assign(-weights)
    state = model.encode_user(inputs)
    state["behaviors"] = tf.abs(behaviors)
    model.embedding.candidate_projection.kernel.assign(
        tf.abs(model.embedding.candidate_projection.kernel)
    )
    retrieved = model.score(state, inputs, trace=True).trace["long/retrieved"]
    for row, count in zip(retrieved.numpy(), [5, 0, 12], strict=True):
        for found in row:
            kept = found[found >= 0]
            assert len(kept) == min(count, 7)
            assert np.all(kept >= LENGTH - count)


def test_the_search_learns_through_the_auxiliary_alone() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [LENGTH, 6])
    searches = [model.search_behavior.kernel, model.search_candidate.kernel]
    with tf.GradientTape(persistent=True) as tape:
        scores = model(inputs, training=True)
        extra = scores.auxiliary["search"].logits
    sources = [kernel.value for kernel in searches]
    assert tape.gradient(scores.logits, sources) == [None, None]
    for gradient in tape.gradient(extra, sources):
        assert np.all(np.max(np.abs(gradient), axis=0) > 0)


def test_learns_what_only_a_search_sees() -> None:
    recipe = dataclasses.replace(RECIPE, **retrieval_signal.SIZES)
    assert retrieval_signal.loss_of_new_requests(recipe) < 0.2


def test_a_search_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="`auxiliary_weight` must be above 0"):
        dataclasses.replace(RECIPE, auxiliary_weight=0.0)
