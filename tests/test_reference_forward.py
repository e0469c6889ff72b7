"""The reference's whole forward pass: its properties, and what is idle."""

import dataclasses
import math

import numpy as np
import pytest

from sparsectr.config import ModelConfig
from sparsectr.schema import CategoricalField, DatasetSchema, DenseField, Table
from tests import reference

DAY = 24 * 3600
MONDAY = 4 * DAY
"""1970-01-05 00:00 UTC, a Monday."""

SCHEMA = DatasetSchema(
    name="toy",
    tables=(Table(name="item", size=11), Table(name="age", size=5)),
    user_fields=(CategoricalField(name="age", table="age"),),
    behavior_fields=(CategoricalField(name="item", table="item"),),
    candidate_fields=(CategoricalField(name="item", table="item"),),
    candidate_dense_fields=(
        DenseField(name="price", transform="log1p", mean=1.0, scale=2.0),
    ),
    utc_offset_hours=8,
)
CONFIG = ModelConfig(
    width=4,
    embedding_dim=3,
    num_blocks=2,
    num_heads=2,
    num_chunks=3,
    num_transition=2,
    num_local=2,
    head_units=5,
)


def _random_weights(seed: int = 0) -> dict:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape)

    def mlp(inputs: int, hidden: int, outputs: int) -> dict[str, np.ndarray]:
        return {
            "kernel_1": draw(inputs, hidden),
            "bias_1": draw(hidden),
            "kernel_2": draw(hidden, outputs),
            "bias_2": draw(outputs),
        }

    def block() -> dict:
        square = {
            name: draw(4, 4) for name in ("query", "key", "value", "output")
        }
        vectors = {
            f"slopes_{kind}": draw(2) for kind in ("time", "hour", "weekend")
        }
        return {
            **square,
            **vectors,
            "attention_norm": draw(4),
            "feed_forward_norm": draw(4),
            "key_aggregate": mlp(4, 4, 4),
            "value_aggregate": mlp(4, 4, 4),
            "gate": draw(2, 6, 3),
            "swiglu_gate": draw(4, 12),
            "swiglu_up": draw(4, 12),
            "swiglu_down": draw(12, 4),
        }

    return {
        "tables": {"item": draw(11, 3), "age": draw(5, 3)},
        "behavior_projection": {"kernel": draw(3, 4), "bias": draw(4)},
        "candidate_projection": {"kernel": draw(4, 4), "bias": draw(4)},
        "user_mlp": mlp(3, 4, 4),
        "blocks": [block(), block()],
        "head": {
            "candidate": draw(4, 4),
            "user": draw(3, 4),
            **mlp(4, 5, 1),
        },
    }


def _inputs() -> dict[str, np.ndarray]:
    first = MONDAY + DAY * np.array([0, 1, 3, 4, 6, 7, 7]) + 7 * np.arange(7)
    second = MONDAY + DAY * np.array([1, 2, 2, 5, 9])
    return {
        "user_age": np.array([2, 3], np.int32),
        "behavior_item": np.array(
            [[2, 3, 4, 5, 6, 7, 8], [0, 0, 9, 4, 3, 10, 2]], np.int32
        ),
        "behavior_time": np.array([first, np.pad(second, (2, 0))]),
        "request_time": MONDAY + DAY * np.array([9, 10]),
        "candidate_item": np.array([[3, 9, 5], [2, 2, 0]], np.int32),
        "candidate_price": np.array([[0.0, 9.5, np.nan], [3.0, 4.0, 0.0]]),
        "candidate_mask": np.array([[True] * 3, [True, True, False]]),
    }


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, attention="full"),
        dataclasses.replace(CONFIG, temporal_bias=False),
    ],
    ids=["evo", "full", "no_bias"],
)
class TestForward:
    def test_padding_changes_nothing(self, config: ModelConfig) -> None:
        inputs = _inputs()
        weights = _random_weights()
        logits = reference.forward(weights, inputs, SCHEMA, config)
        assert logits.shape == (2, 3)
        assert np.all(np.isfinite(logits))
        for name in ("behavior_item", "behavior_time"):
            inputs[name] = np.pad(inputs[name], ((0, 0), (3, 0)))
        padded = reference.forward(weights, inputs, SCHEMA, config)
        np.testing.assert_allclose(padded, logits, rtol=1e-12)

    def test_candidates_are_isolated(self, config: ModelConfig) -> None:
        inputs = _inputs()
        weights = _random_weights()
        logits = reference.forward(weights, inputs, SCHEMA, config)
        for name, values in inputs.items():
            if name.startswith("candidate_"):
                inputs[name] = values[:, 1:2]
        alone = reference.forward(weights, inputs, SCHEMA, config)
        np.testing.assert_allclose(alone, logits[:, 1:2], rtol=1e-12)

    def test_whole_weeks_change_nothing(self, config: ModelConfig) -> None:
        inputs = _inputs()
        weights = _random_weights()
        logits = reference.forward(weights, inputs, SCHEMA, config)
        times = inputs["behavior_time"]
        inputs["behavior_time"] = np.where(times == 0, 0, times + 21 * DAY)
        inputs["request_time"] = inputs["request_time"] + 21 * DAY
        later = reference.forward(weights, inputs, SCHEMA, config)
        np.testing.assert_array_equal(later, logits)

    def test_times_matter_through_chunks_and_bias(
        self, config: ModelConfig
    ) -> None:
        inputs = _inputs()
        weights = _random_weights()
        logits = reference.forward(weights, inputs, SCHEMA, config)
        inputs["behavior_time"][0] = MONDAY + 60 * np.arange(1, 8) ** 3
        moved = reference.forward(weights, inputs, SCHEMA, config)
        assert np.all(np.abs(moved - logits)[0] > 1e-6)
        np.testing.assert_array_equal(moved[1], logits[1])


def _leaves(node: dict, path: str = "") -> dict[str, tuple[dict, str]]:
    """Returns path -> (dict that holds the array, its key) for all arrays."""
    leaves = {}
    for name, value in node.items():
        if isinstance(value, dict):
            leaves.update(_leaves(value, f"{path}{name}/"))
        elif isinstance(value, list):
            for number, part in enumerate(value):
                leaves.update(_leaves(part, f"{path}{name}/{number}/"))
        else:
            leaves[path + name] = (node, name)
    return leaves


def test_every_weight_matters() -> None:
    inputs = _inputs()
    weights = _random_weights()
    logits = reference.forward(weights, inputs, SCHEMA, CONFIG)
    leaves = _leaves(weights)
    assert len(leaves) == 2 + 4 + 4 + 2 * 21 + 6
    idle = set()
    for path, (node, name) in leaves.items():
        before = node[name]
        change = np.linspace(0.5, 1.5, before.size).reshape(before.shape)
        node[name] = before + change
        changed = reference.forward(weights, inputs, SCHEMA, CONFIG)
        node[name] = before
        if np.max(np.abs(changed - logits)) < 1e-9:
            idle.add(path)
    # One and the same vector added to all chunk keys moves all logits of a
    # query alike, and softmax does not see it.
    assert idle == {f"blocks/{n}/key_aggregate/bias_2" for n in (0, 1)}


def test_forward_without_user_fields() -> None:
    schema = dataclasses.replace(SCHEMA, user_fields=())
    inputs = _inputs()
    del inputs["user_age"]
    weights = _random_weights()
    del weights["user_mlp"], weights["head"]["user"]
    # No behaviors either: every branch is empty, attention adds nothing.
    for name in ("behavior_item", "behavior_time"):
        inputs[name] = np.zeros_like(inputs[name])
    logits = reference.forward(weights, inputs, schema, CONFIG)
    row = weights["tables"]["item"][9]
    features = np.append(row, (math.log(10.5) - 1.0) / 2.0)
    kernel = weights["candidate_projection"]
    candidate = features @ kernel["kernel"] + kernel["bias"]
    for block in weights["blocks"]:
        normalized = reference.rms_norm(candidate, block["feed_forward_norm"])
        candidate = candidate + reference.swiglu(block, normalized)
    expected = reference.prediction_layer(
        weights["head"], candidate[np.newaxis], np.zeros(0)
    )
    np.testing.assert_allclose(logits[0, 1], expected[0], rtol=1e-12)


def test_missing_dense_feature_is_zero_after_the_transform() -> None:
    inputs = _inputs()
    weights = _random_weights()
    logits = reference.forward(weights, inputs, SCHEMA, CONFIG)
    # log1p(e - 1) = 1 is the mean.
    inputs["candidate_price"][0, 2] = math.e - 1
    at_mean = reference.forward(weights, inputs, SCHEMA, CONFIG)
    np.testing.assert_allclose(at_mean, logits, rtol=1e-12)


def test_weekend_follows_the_time_zone_of_the_schema() -> None:
    inputs = _inputs()
    # Friday 15:00 UTC before a weekend's request: Saturday in UTC+9 alone.
    inputs["behavior_time"][0, -1] = MONDAY + 4 * DAY + 15 * 3600
    inputs["behavior_time"][0, :-1] = MONDAY + np.arange(6)
    inputs["request_time"][0] = MONDAY + 6 * DAY - 9 * 3600
    weights = _random_weights()
    logits = reference.forward(weights, inputs, SCHEMA, CONFIG)
    schema = dataclasses.replace(SCHEMA, utc_offset_hours=9)
    moved = reference.forward(weights, inputs, schema, CONFIG)
    assert np.all(np.abs(moved - logits)[0] > 1e-6)
    np.testing.assert_array_equal(moved[1], logits[1])


def test_block_normalizes_the_user_like_the_sequence() -> None:
    block = _random_weights()["blocks"][0]
    random = np.random.default_rng(1)
    sequence = random.normal(size=(3, 4))
    user = random.normal(size=4)
    arguments = ([MONDAY, MONDAY + 9], MONDAY + 10, CONFIG, 0)
    output = reference.sparse_block(block, sequence, user, *arguments)
    scaled = reference.sparse_block(block, sequence, 100 * user, *arguments)
    np.testing.assert_allclose(scaled, output, rtol=1e-4)
    turned = reference.sparse_block(block, sequence, user[::-1], *arguments)
    assert np.all(np.abs(turned - output) > 1e-3)
