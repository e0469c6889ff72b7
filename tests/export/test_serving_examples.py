"""Requests as serialized tf.Example."""

import numpy as np
import pytest
import tensorflow as tf

from tests.export.exported_model import exported, requests

__all__ = ["exported"]

NUM_VALID = [29, 0, 3, 11]
NUM_CANDIDATES = [5, 2, 0, 3]


@pytest.fixture(scope="module")
def raw():
    return requests(3, NUM_VALID)[1]


def _feature(values):
    values = np.asarray(values).ravel()
    if values.dtype.kind in "iu":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    texts = [str(value).encode() for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))


def _features(raw, row):
    """Returns what a client has of a request: no padding."""
    found = {}
    for name, values in raw.items():
        values = values[row]
        if name.startswith("behavior_"):
            values = values[len(values) - NUM_VALID[row] :]
        elif name.startswith("candidate_"):
            values = values[: NUM_CANDIDATES[row]]
        found[name] = _feature(values)
    return found


def _serialized(features):
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


@pytest.fixture(scope="module")
def features(raw):
    return [_features(raw, row) for row in range(len(NUM_VALID))]


def _ask(exported, *features):
    examples = np.array([_serialized(f) for f in features], object)
    return exported.probability({"examples": examples}, "serving_examples")


def _refused(exported, *features):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        _ask(exported, *features)
    return str(caught.value)


def test_equals_the_tensors(exported, raw, features):
    found = _ask(exported, *features)
    expected = exported.probability(raw)
    for row, count in enumerate(NUM_CANDIDATES):
        expected[row, count:] = 0.0
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_by_one(exported, features):
    together = _ask(exported, *features)
    for row, count in enumerate(NUM_CANDIDATES):
        alone = _ask(exported, features[row])
        assert alone.shape == (1, count)
        np.testing.assert_allclose(alone[0], together[row, :count], atol=1e-6)


def test_absent_profile_is_missing(exported, raw, features):
    changed = dict(features[0])
    del changed["user_gender"], changed["user_age"]
    gender, age = raw["user_gender"].copy(), raw["user_age"].copy()
    gender[0], age[0] = "", -(2**63)
    expected = exported.probability(
        {**raw, "user_gender": gender, "user_age": age}
    )
    np.testing.assert_allclose(
        _ask(exported, changed)[0], expected[0], atol=1e-6
    )


def test_absent_history_is_an_empty_one(exported, features):
    changed = {k: v for k, v in features[1].items() if "behavior" not in k}
    np.testing.assert_array_equal(
        _ask(exported, changed), _ask(exported, features[1])
    )


@pytest.mark.parametrize(
    "name",
    [
        *("behavior_item", "behavior_brand", "behavior_time"),
        *("candidate_brand", "candidate_place", "candidate_price"),
    ],
)
def test_list_that_is_absent_or_too_short(name, exported, raw, features):
    absent = {k: v for k, v in features[0].items() if k != name}
    assert f"{name} is absent or shorter than" in _refused(exported, absent)
    short = {**absent, name: _feature(raw[name][0, :1])}
    assert f"{name} is absent or shorter than" in _refused(
        exported, features[3], short
    )


def test_no_request_time(exported, features):
    absent = {k: v for k, v in features[0].items() if k != "request_time"}
    assert "request_time" in _refused(exported, absent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("behavior_item", ["text"]),
        ("candidate_price", [5]),
        ("user_gender", [1]),
    ],
)
def test_wrong_type(name, value, exported, features):
    message = _refused(exported, {**features[0], name: _feature(value)})
    assert name in message


def test_not_an_example(exported):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse"):
        exported.probability(
            {"examples": np.array([b"\x07"])}, "serving_examples"
        )
