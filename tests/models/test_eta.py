"""ETA against its own equations in NumPy."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest

from sparsectr.layers.retrieval.random_codes import RandomCodes
from tests import retrieval_signal
from tests.keras_weights import random_model
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.reference import retrieval

# So few bits that most distances are ties.
RECIPE = sized_recipe("eta", num_recent=13, num_retrieved=7, num_bits=5)


def test_equals_the_equations() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    trace = model(inputs, trace=True).trace
    user, behaviors, candidates = map(retrieval.array, model.embedding(inputs))
    planes = retrieval.array(model.codes.directions)

    def code(x: np.ndarray) -> int:
        bits = "".join("1" if x @ plane > 0 else "0" for plane in planes.T)
        return int(bits, 2)

    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        valid = inputs["behavior_time"][b] > 0
        rows, q = behaviors[b, valid], candidates[b, c]
        distance = np.array([(code(q) ^ code(e)).bit_count() for e in rows])
        # The golden test: one matrix product counts the bits that differ.
        np.testing.assert_array_equal(
            trace["long/distance"][b, c][valid], distance
        )
        best = retrieval.best(-distance, 7)
        long = retrieval.target_attention(q, rows[best], model.long_attention)
        short = retrieval.short_interest(model, q, rows)
        x = np.concatenate([short, long, q, user[b]])
        expected[b, c] = retrieval.mlp_head(x, model.head)
    logits = model(inputs).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_of_equal_distances_the_newest_are_found() -> None:
    model = random_model(SCHEMA, RECIPE, 1)
    model.codes.directions.assign(0.0 * model.codes.directions)
    inputs = make_requests(2, [LENGTH, 3])
    found = model(inputs, trace=True).trace["long/retrieved"].numpy()
    newest = LENGTH - 1 - np.arange(7)
    np.testing.assert_array_equal(found[0], np.tile(newest, (5, 1)))
    newest[3:] = -1
    np.testing.assert_array_equal(found[1], np.tile(newest, (5, 1)))


# Keras 3.15 hands its variables to NumPy 2 in the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_the_directions_are_saved_and_not_trained(
    tmp_path: pathlib.Path,
) -> None:
    model = RECIPE.build(SCHEMA)
    directions = model.codes.directions
    assert all(directions is not weight for weight in model.trainable_weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.codes.directions.numpy(), directions.numpy()
    )
    other = RECIPE.build(SCHEMA).codes.directions
    assert np.any(other.numpy() != directions.numpy())


def test_learns_what_only_a_search_sees() -> None:
    sizes = {**retrieval_signal.SIZES, "num_bits": 32}
    recipe = dataclasses.replace(RECIPE, **sizes)
    assert retrieval_signal.loss_of_new_requests(recipe) < 0.3


def test_a_code_without_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_bits` must be at least 1"):
        RandomCodes(0)
