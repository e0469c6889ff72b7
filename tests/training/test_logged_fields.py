"""What only a log has, on made data whose truth is known."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.prediction.calibrated import served_probability
from sparsectr.schema import DatasetSchema
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep
from tests.make_requests import (
    LOGGED_SCHEMA,
    SCHEMA,
    SMALL_CONFIG,
    make_requests,
    sized_recipe,
)

BATCH, CANDIDATES, STEPS = 128, 8, 400
FIRST_PLACE = 2

Batch = dict[str, Any]


def _train(schema: DatasetSchema, batches: list[Batch]) -> Any:
    keras.utils.set_random_seed(1)
    model = sized_recipe("mean_pooling", SMALL_CONFIG).build(schema)
    optimizer = LazyAdam(0.02)
    optimizer.build(model.trainable_variables)
    step = TrainStep(model, optimizer, make_strategy(1), jit_compile=False)
    for number in range(STEPS):
        batch = batches[number % len(batches)]
        step({name: tf.constant(value) for name, value in batch.items()})
    return model


def _requests(seed: int, schema: DatasetSchema) -> Batch:
    """Returns requests that tell nothing but the candidates' place."""
    batch = make_requests(
        seed, [0] * BATCH, schema, length=1, num_candidates=CANDIDATES
    )
    for name, value in batch.items():
        if name.startswith(("user_", "candidate_")) and value.dtype != bool:
            batch[name] = np.ones_like(value)
    return batch


RATES = np.array([0.02, 0.1, 0.3])
"""Click rate of each of three kinds of candidates."""

KEPT = 0.25
"""Share of the negatives that the log keeps."""


def _thinned(seed: int, schema: DatasetSchema) -> Batch:
    """Returns a batch of a log that has only some of the negatives."""
    random = np.random.default_rng(seed)
    batch = _requests(seed, schema)
    kind = random.integers(0, 3, (BATCH, CANDIDATES))
    label = random.random(kind.shape) < RATES[kind]
    kept = label | (random.random(kind.shape) < KEPT)
    batch["candidate_place"] = (FIRST_PLACE + kind).astype(np.int32)
    batch["candidate_mask"] = kept
    batch["label"] = label.astype(np.float32)
    if schema.has_weight:
        weight = np.where(label, 1.0, 1.0 / KEPT)
        batch["candidate_weight"] = weight.astype(np.float32)
    return batch


@pytest.mark.parametrize("says", ["rate", "weights", "nothing"])
def test_probabilities_are_those_of_the_whole_log(says: str) -> None:
    schema = dataclasses.replace(
        SCHEMA,
        negative_rate=KEPT if says == "rate" else 1.0,
        has_weight=says == "weights",
    )
    model = _train(schema, [_thinned(seed, schema) for seed in range(100)])
    batch = _requests(1000, schema)
    kinds = FIRST_PLACE + np.arange(CANDIDATES) % 3
    batch["candidate_place"] = np.tile(kinds, (BATCH, 1)).astype(np.int32)
    served = served_probability(
        model(batch).logits, None, schema.negative_rate
    ).numpy()
    expected = RATES
    if says == "nothing":  # what the log itself says
        expected = RATES / (RATES + KEPT * (1 - RATES))
    np.testing.assert_allclose(served[:, :3].mean(axis=0), expected, rtol=0.12)


def test_a_rate_divides_the_odds() -> None:
    true = np.array([0.001, 0.1, 0.5, 0.9])
    odds = true / (1 - true)
    logged = np.log(odds / KEPT).astype(np.float32)
    served = served_probability(tf.constant(logged), None, KEPT)
    np.testing.assert_allclose(served, true, rtol=1e-5)


def test_a_place_is_learned_apart() -> None:
    """Good candidates stand where nobody looks, and score higher all the same.

    Among the log's rows those in the first places have more clicks, though
    each of them is worse.
    """
    batches = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        batch = _requests(seed, LOGGED_SCHEMA)
        place = np.tile(np.arange(CANDIDATES), (BATCH, 1))
        is_good = random.random(place.shape) < place / (CANDIDATES - 1)
        logit = 1.0 * is_good - 0.6 * place
        label = random.random(place.shape) < 1 / (1 + np.exp(-logit))
        batch["candidate_place"] = (FIRST_PLACE + is_good).astype(np.int32)
        batch["candidate_position"] = (FIRST_PLACE + place).astype(np.int32)
        batch["candidate_weight"] = np.ones(place.shape, np.float32)
        batch["label"] = label.astype(np.float32)
        batches.append(batch)
    rates = [
        np.mean(
            [b["label"][b["candidate_place"] == kind].mean() for b in batches]
        )
        for kind in (FIRST_PLACE, FIRST_PLACE + 1)
    ]
    assert rates[0] > rates[1]  # the log as it is would rank them so
    model = _train(LOGGED_SCHEMA, batches)
    request = _requests(1000, LOGGED_SCHEMA)
    request["candidate_place"][:, 0] = FIRST_PLACE
    request["candidate_place"][:, 1] = FIRST_PLACE + 1
    bad, good = model(request).logits.numpy()[:, :2].mean(axis=0)
    assert good - bad == pytest.approx(1.0, abs=0.3)
    bias = model.training_fields.biases["position"].numpy()
    slopes = np.diff(bias[FIRST_PLACE : FIRST_PLACE + CANDIDATES])
    assert slopes.mean() == pytest.approx(-0.6, abs=0.12)
    # Nothing that is served reads them.
    request["candidate_position"] = np.full((BATCH, CANDIDATES), 5, np.int32)
    np.testing.assert_array_equal(
        model(request).logits[:, :2].numpy().mean(axis=0), [bad, good]
    )
