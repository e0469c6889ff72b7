"""What must never be true of a score (spec: a sample is a request)."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import (
    CONFIG,
    DAY,
    LENGTH,
    NUM_CANDIDATES,
    SCHEMA,
    WEEK,
    make_requests,
    pad_left,
    subset,
)

NUM_VALID = [LENGTH, 0, 1, 6, 17]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Other shapes sum in another order; logits are of the size of 1."""

CONFIGS = {
    "evo": CONFIG,
    "full": dataclasses.replace(CONFIG, attention="full"),
    "mean_pooling": dataclasses.replace(CONFIG, name="mean_pooling"),
}

every_model = pytest.mark.parametrize("name", CONFIGS)
every_attention = pytest.mark.parametrize("name", ["evo", "full"])


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        name: random_model(SCHEMA, config, 1)
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    return make_requests(2, NUM_VALID)


@every_model
def test_order_of_candidates_changes_nothing(
    name: str, models: dict, inputs: dict
) -> None:
    logits = models[name](inputs).numpy()
    order = np.array([3, 0, 4, 1, 2])
    moved = models[name](subset(inputs, "candidate_", order))
    np.testing.assert_allclose(moved, logits[:, order], **TOLERANCE)
    assert np.all(np.std(logits, axis=1) > 0.01)


@every_model
def test_candidates_do_not_see_each_other(
    name: str, models: dict, inputs: dict
) -> None:
    logits = models[name](inputs).numpy()
    for index in range(NUM_CANDIDATES):
        columns = slice(index, index + 1)
        alone = models[name](subset(inputs, "candidate_", columns))
        np.testing.assert_allclose(alone, logits[:, columns], **TOLERANCE)
    others = make_requests(3, NUM_VALID)
    for key in inputs:
        if key.startswith("candidate_"):
            others[key][:, 2] = inputs[key][:, 2]
        else:
            others[key] = inputs[key]
    replaced = models[name](others).numpy()
    np.testing.assert_allclose(replaced[:, 2], logits[:, 2], **TOLERANCE)
    changed = np.abs(replaced - logits)[:, [0, 1, 3, 4]]
    assert np.all(np.mean(changed, axis=1) > 0.01)


@every_model
def test_batch_mates_change_nothing(
    name: str, models: dict, inputs: dict
) -> None:
    logits = models[name](inputs).numpy()
    for row in range(len(NUM_VALID)):
        alone = {k: v[row : row + 1] for k, v in inputs.items()}
        np.testing.assert_allclose(
            models[name](alone), logits[row : row + 1], **TOLERANCE
        )


@every_model
@pytest.mark.parametrize("columns", [1, 13])
def test_left_padding_changes_nothing(
    name: str, columns: int, models: dict, inputs: dict
) -> None:
    logits = models[name](inputs)
    padded = models[name](pad_left(inputs, columns))
    np.testing.assert_allclose(padded, logits, **TOLERANCE)


@every_model
def test_ids_of_padding_change_nothing(
    name: str, models: dict, inputs: dict
) -> None:
    """Time 0 alone says what is padding."""
    logits = models[name](inputs)
    padding = inputs["behavior_time"] == 0
    other = dict(inputs)
    for key in ("behavior_item", "behavior_brand"):
        other[key] = np.where(padding, 7, inputs[key]).astype("int32")
    np.testing.assert_allclose(models[name](other), logits, **TOLERANCE)


def _moved(inputs: dict[str, Any], seconds: int) -> dict[str, Any]:
    times = inputs["behavior_time"]
    return {
        **inputs,
        "behavior_time": np.where(times > 0, times + seconds, 0),
        "request_time": inputs["request_time"] + seconds,
    }


@every_attention
@pytest.mark.parametrize("weeks", [1, -3, 100])
def test_whole_weeks_change_nothing(
    name: str, weeks: int, models: dict, inputs: dict
) -> None:
    logits = models[name](inputs)
    later = models[name](_moved(inputs, weeks * WEEK))
    np.testing.assert_array_equal(later, logits)


@every_attention
def test_days_of_the_week_matter(name: str, models: dict, inputs: dict) -> None:
    """So that the test above can fail."""
    logits = models[name](inputs).numpy()
    differences = [
        np.max(np.abs(models[name](_moved(inputs, days * DAY)) - logits))
        for days in range(1, 7)
    ]
    assert max(differences) > 0.01


@every_model
def test_empty_histories_are_finite(name: str, models: dict) -> None:
    logits = models[name](make_requests(4, [0, 0, 0]))
    assert np.all(np.isfinite(logits))


@pytest.mark.parametrize("has_user", [True, False])
@every_model
@pytest.mark.parametrize("num_valid", [NUM_VALID, [0, 0, 0]])
def test_every_gradient_is_finite(
    name: str, num_valid: list[int], has_user: bool
) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    unread = {"age", "city", "gender"} if not has_user else set()
    schema = dataclasses.replace(
        schema, tables=tuple(t for t in schema.tables if t.name not in unread)
    )
    model = random_model(schema, CONFIGS[name], 5)
    inputs = make_requests(6, num_valid, schema)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.softplus(model(inputs)))
    sources = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(loss, sources)
    for weight, gradient in zip(
        model.trainable_weights, gradients, strict=True
    ):
        assert gradient is not None, f"no gradient for {weight.path}"
        values = tf.convert_to_tensor(getattr(gradient, "values", gradient))
        assert np.all(np.isfinite(values)), weight.path
        if num_valid is NUM_VALID:
            assert np.any(values != 0), f"gradient of {weight.path} is 0"


@every_model
@pytest.mark.parametrize("offset", [0, 5, -1])
def test_ids_outside_the_table_are_out_of_vocabulary(
    name: str, offset: int, models: dict, inputs: dict
) -> None:
    known, foreign = dict(inputs), dict(inputs)
    for kind, fields in (
        ("user", SCHEMA.user_fields),
        ("behavior", SCHEMA.behavior_fields),
        ("candidate", SCHEMA.candidate_fields),
    ):
        for field in fields:
            key = f"{kind}_{field.name}"
            index = (0, 0) if kind == "candidate" else 0
            foreign_id = (
                -1 if offset < 0 else SCHEMA.table(field.table).size + offset
            )
            known[key], foreign[key] = inputs[key].copy(), inputs[key].copy()
            known[key][index], foreign[key][index] = 1, foreign_id
    logits = models[name](known).numpy()
    np.testing.assert_array_equal(models[name](foreign), logits)
    assert np.any(logits[0] != models[name](inputs).numpy()[0])


@every_attention
@pytest.mark.parametrize("changed", [28, 27, 20, 12])
def test_the_future_does_not_change_the_past(
    name: str, changed: int, models: dict, inputs: dict
) -> None:
    """A behaviour's row after a block reads nothing behind itself."""
    model = models[name]
    hidden = model.embedding.behaviors(inputs)
    user = keras.ops.zeros_like(hidden[:, 0])
    plan = model.plan(inputs["behavior_time"])
    other = hidden.numpy()
    other[:, changed] += 1.0
    rows, others = (
        model.blocks[0]
        .encode(keras.ops.convert_to_tensor(x), user, plan, is_last=False)[0]
        .numpy()
        for x in (hidden, other)
    )
    np.testing.assert_array_equal(others[:, :changed], rows[:, :changed])
    # The full history is read by all that come later in it.
    later = np.max(np.abs(others - rows)[0, changed:], axis=1)
    assert np.all(later > 1e-6) if name == "full" else later[0] > 1e-6


@every_attention
def test_every_behavior_is_read_by_candidates(
    name: str, models: dict, inputs: dict
) -> None:
    # The first request once a behaviour, and each time that one is another.
    copies = {k: np.repeat(v[:1], LENGTH, axis=0) for k, v in inputs.items()}
    logits = models[name](copies).numpy()
    change = np.eye(LENGTH, dtype="int32")
    copies["behavior_item"] = (copies["behavior_item"] + change) % 23
    moved = models[name](copies).numpy()
    assert np.all(np.max(np.abs(moved - logits), axis=1) > 1e-4)
