"""What a request may hold that it should not, and the answer to it.

The table in `export.graph.signature` says what these tests check. Wherever
there is an answer, the other requests of the same call keep theirs bit by bit.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.export.exported_model import MAX_HISTORY, exported, only, requests
from tests.make_requests import subset

__all__ = ["exported"]

NUM_VALID = [29, 0, 3, 11]
BAD = 2
OTHERS = [0, 1, 3]


@pytest.fixture(scope="module")
def raw():
    return requests(3, NUM_VALID)[1]


@pytest.fixture(scope="module")
def answer(exported, raw):
    return exported.probability(raw)


def _changed(raw, name, value):
    """Returns the requests with all of one tensor replaced in a row."""
    values = raw[name].copy()
    values[BAD] = value
    return {**raw, name: values}


def _answers(exported, raw):
    """Returns the answers of the whole pass and of the two calls."""
    return exported.probability(raw), exported.score(exported.encode(raw), raw)


def _assert_others_keep_theirs(exported, raw, changed):
    for before, after in zip(
        _answers(exported, raw), _answers(exported, changed), strict=True
    ):
        np.testing.assert_array_equal(after[OTHERS], before[OTHERS])
        assert np.isfinite(after).all()


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("serving_default", "user_age"),
        ("serving_default", "behavior_time"),
        ("encode_user", "behavior_brand"),
        ("score", "candidate_price"),
        ("score", "state_fingerprint"),
    ],
)
def test_missing_tensor(signature, name, exported, raw):
    inputs = {**raw, **exported.encode(raw)}
    names = exported.loaded.signatures[signature].structured_input_signature[1]
    inputs = {n: inputs[n] for n in names if n != name}
    with pytest.raises(TypeError, match=name):
        exported.call(signature, inputs)


def test_unknown_tensor(exported, raw):
    with pytest.raises(TypeError, match="label"):
        exported.call(
            "serving_default", {**raw, "label": raw["candidate_price"]}
        )


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("behavior_item", np.int32, "int64"),
        ("candidate_price", np.float64, "float"),
        ("user_gender", np.int64, "string"),
    ],
)
def test_wrong_dtype(name, dtype, expected, exported, raw):
    changed = {**raw, name: np.zeros(raw[name].shape, dtype)}
    message = f"was expected to be a {expected} tensor"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported.probability(changed)


@pytest.mark.parametrize("signature", ["serving_default", "encode_user"])
@pytest.mark.parametrize("name", ["behavior_item", "behavior_brand"])
@pytest.mark.parametrize("length", [0, 1, 28, 60])
def test_lengths_that_differ(length, name, signature, exported, raw):
    inputs = raw if signature == "serving_default" else only(raw, "user", "beh")
    values = np.resize(raw[name], (len(NUM_VALID), length))
    message = f"{name} must have the shape of behavior_time"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported.call(signature, {**inputs, name: values})


@pytest.mark.parametrize("name", ["candidate_item", "candidate_price"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_numbers_of_candidates_that_differ(count, name, exported, raw):
    changed = {**raw, name: raw[name][:, :count]}
    message = f"{name} must have the shape of candidate_brand"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported.probability(changed)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported.score(exported.encode(raw), changed)


@pytest.mark.parametrize(
    "signature", ["serving_default", "encode_user", "score"]
)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_numbers_of_requests_that_differ(rows, signature, exported, raw):
    inputs = {**raw, **exported.encode(raw)}
    names = exported.loaded.signatures[signature].structured_input_signature[1]
    inputs = {name: inputs[name] for name in names}
    exported.call(signature, inputs)
    for name in names:
        changed = {**inputs, name: inputs[name][:rows]}
        message = rf"the inputs differ in B:.*\[{name}\] \[{rows}\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            exported.call(signature, changed)


@pytest.mark.parametrize(
    ("name", "unknown", "known", "missing"),
    [
        ("user_age", [999_999, -(2**62)], 1, -(2**63)),
        ("user_gender", ["gender 9", "\xff"], "gender 0", ""),
        ("behavior_brand", ["x", "brand 35"], "brand 34", ""),
        ("candidate_place", [2**63 - 1, 3], -13, -(2**63)),
        ("candidate_brand", ["a\nb", "brand"], "brand 1", ""),
    ],
)
def test_unknown_id(name, unknown, known, missing, exported, raw):
    changed = _changed(raw, name, unknown[0])
    _assert_others_keep_theirs(exported, raw, changed)
    found = exported.probability(changed)
    also = exported.probability(_changed(raw, name, unknown[1]))
    np.testing.assert_array_equal(found, also)
    for value in (known, missing):
        other = exported.probability(_changed(raw, name, value))
        assert np.abs(other - found)[BAD].max() > 1e-5


def test_history_of_padding_alone(exported, raw, answer):
    changed = _changed(raw, "behavior_time", 0)
    _assert_others_keep_theirs(exported, raw, changed)
    alone = {k: v[BAD : BAD + 1] for k, v in raw.items()}
    without = {
        name: value[:, :0] if name.startswith("behavior_") else value
        for name, value in alone.items()
    }
    for found in _answers(exported, without):
        np.testing.assert_allclose(
            found[0], exported.probability(changed)[BAD], atol=1e-6
        )
    assert np.abs(exported.probability(changed) - answer)[BAD].max() > 1e-4


def test_no_history_in_the_whole_call(exported, raw):
    without = subset(raw, "behavior_", slice(0, 0))
    for found in _answers(exported, without):
        assert found.shape == (4, 5)
        assert np.isfinite(found).all()


def test_no_candidates(exported, raw):
    without = subset(raw, "candidate_", slice(0, 0))
    for found in _answers(exported, without):
        assert found.shape == (4, 0)


def test_no_requests(exported, raw):
    nobody = {name: value[:0] for name, value in raw.items()}
    for found in _answers(exported, nobody):
        assert found.shape == (0, 5)


def test_history_of_100_000(exported):
    _, raw = requests(4, [100_000, 41], length=100_000)
    newest = subset(raw, "behavior_", slice(-MAX_HISTORY, None))
    for found, expected in zip(
        _answers(exported, raw), _answers(exported, newest), strict=True
    ):
        # As in training: the newest `max_history` are read.
        np.testing.assert_array_equal(found, expected)
    sizes = [v.nbytes for v in exported.encode(raw).values()]
    assert sizes == [v.nbytes for v in exported.encode(newest).values()]


@pytest.mark.parametrize(
    "kind",
    ["reversed", "shuffled", "at the request", "future", "huge", "negative"],
)
def test_times_that_cannot_be(kind, exported, raw):
    full = requests(8, [29] * 4)[1]
    time = full["behavior_time"]
    now = full["request_time"]
    row = {
        "reversed": time[BAD, ::-1],
        "shuffled": np.random.default_rng(9).permutation(time[BAD]),
        "at the request": np.full(29, now[BAD]),
        "future": time[BAD] + 10**9,
        "huge": np.resize([2**63 - 1, 1, 2**62, 2**63 - 1], 29),
        "negative": np.resize([-(2**63), 5, -1], 29),
    }[kind]
    assert not np.array_equal(row, time[BAD])
    _assert_others_keep_theirs(
        exported, full, _changed(full, "behavior_time", row)
    )


@pytest.mark.parametrize("time", [0, -1, 1, 2**63 - 1, -(2**63)])
def test_request_time_that_cannot_be(time, exported, raw):
    _assert_others_keep_theirs(
        exported, raw, _changed(raw, "request_time", time)
    )


@pytest.mark.parametrize("price", [np.nan, np.inf, -np.inf])
def test_dense_feature_that_is_no_number(price, exported, raw):
    changed = _changed(raw, "candidate_price", price)
    _assert_others_keep_theirs(exported, raw, changed)
    missing = exported.probability(_changed(raw, "candidate_price", np.nan))
    np.testing.assert_array_equal(exported.probability(changed), missing)


@pytest.mark.parametrize("price", [-5.0, 0.0, 3.0e38])
def test_any_price_has_an_answer(price, exported, raw):
    changed = _changed(raw, "candidate_price", price)
    _assert_others_keep_theirs(exported, raw, changed)


@pytest.mark.parametrize("difference", [1, -1, 2**52])
def test_state_of_another_version(difference, exported, raw):
    state = exported.encode(raw)
    expected = exported.score(state, raw)
    state["state_fingerprint"][BAD] += difference
    found = exported.score(state, raw)
    assert np.isnan(found[BAD]).all()
    np.testing.assert_array_equal(found[OTHERS], expected[OTHERS])


@pytest.mark.parametrize("name", ["state_keys", "state_values", "state_user"])
def test_damaged_state(name, exported, raw):
    state = exported.encode(raw)
    expected = exported.score(state, raw)
    state[name][BAD] = np.nan
    found = exported.score(state, raw)
    np.testing.assert_array_equal(found[OTHERS], expected[OTHERS])


def test_state_of_another_shape(exported, raw):
    state = exported.encode(raw)
    for name in ("state_keys", "state_values"):
        state[name] = state[name][:, :, :-1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        exported.score(state, raw)
