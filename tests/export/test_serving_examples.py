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
    assert gender[0] not in raw["user_gender"][1:]
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


def _assert_malformed(exported, features, place, malformed):
    """The others keep their answers bit by bit, this one's are NaN."""
    others = [row for row in range(len(features)) if row != place]
    before = _ask(exported, *features)
    changed = list(features)
    changed[place] = malformed
    found = _ask(exported, *changed)
    np.testing.assert_array_equal(found[others], before[others])
    assert np.isfinite(before).all()
    assert found.shape == before.shape
    assert np.isnan(found[place]).all()
    # No request beside it makes it a request.
    alone = _ask(exported, malformed)
    assert alone.shape[0] == 1
    assert alone.shape[1] > 0
    assert np.isnan(alone).all()


@pytest.mark.parametrize(
    "name",
    [
        *("behavior_item", "behavior_brand", "behavior_time"),
        *("candidate_brand", "candidate_place", "candidate_price"),
    ],
)
@pytest.mark.parametrize("count", [None, 0, 1, 2, 40])
def test_list_that_is_absent_or_of_another_length(
    count, name, exported, raw, features
):
    malformed = {k: v for k, v in features[3].items() if k != name}
    if count is not None:
        malformed[name] = _feature(np.resize(raw[name][3], count))
    if name.startswith("candidate_") and count == 40:
        # As wide as it may be: those of a malformed one count too.
        found = _ask(exported, *features[:3], malformed)
        assert found.shape == (4, 40)
        assert np.isnan(found[3]).all()
        expected = _ask(exported, *features)[:3]
        np.testing.assert_allclose(found[:3, :5], expected, atol=1e-6)
        assert not found[:3, 5:].any()
    else:
        _assert_malformed(exported, features, 3, malformed)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("request_time", None),
        ("request_time", np.zeros(0, np.int64)),
        ("request_time", [1_500_000_000, 1_500_000_001]),
        ("user_age", [1, 8]),
        ("user_gender", ["", "x"]),
    ],
)
def test_not_one_value(name, values, exported, features):
    malformed = {k: v for k, v in features[0].items() if k != name}
    if values is not None:
        malformed[name] = _feature(values)
    _assert_malformed(exported, features, 0, malformed)


def test_malformed_one_does_not_lengthen_the_others(exported, features):
    long = np.arange(1, 100_001)
    malformed = {**features[3], "behavior_time": _feature(long)}
    _assert_malformed(exported, features, 3, malformed)


def test_no_examples(exported):
    found = exported.probability(
        {"examples": np.zeros(0, object)}, "serving_examples"
    )
    assert found.shape == (0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("behavior_item", ["text"]),
        ("candidate_price", [5]),
        ("user_gender", [1]),
    ],
)
def test_wrong_type(name, value, exported, features):
    changed = {**features[0], name: _feature(value)}
    # The parser knows no request apart from the others.
    assert name in _refused(exported, features[3], changed)


def test_not_an_example(exported):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse"):
        exported.probability(
            {"examples": np.array([b"\x07"])}, "serving_examples"
        )
