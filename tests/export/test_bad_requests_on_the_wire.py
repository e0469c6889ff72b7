"""The answers of `test_bad_requests`, as a client of a server gets them.

Nothing here checks a request before it is sent. After each of them the
server still answers.
"""

import numpy as np
import pytest

from data_pipelines.requests.raw_tensors import PROBABILITY
from export.client_parts.grpc_transport import GrpcTransport
from export.client_parts.rest_transport import RestTransport
from export.client_parts.server_error import ServerError
from export.graph.signature import (
    ENCODE_USER,
    EXAMPLES,
    FINGERPRINT,
    SCORE,
    WHOLE_PASS,
)
from export.requests.warm_up import examples_of
from export.stand_in_server.serving import serving
from tests.export.exported_model import MAX_HISTORY, exported, only, requests
from tests.make_requests import subset

__all__ = ["exported"]

TIMEOUT = 60.0
NUM_VALID = [29, 0, 3, 11]
BAD = 2
OTHERS = [0, 1, 3]


@pytest.fixture(scope="module")
def double(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "1"
    path.symlink_to(exported.path)
    with serving(path) as double:
        yield double


@pytest.fixture(scope="module")
def raw():
    return requests(3, NUM_VALID)[1]


@pytest.fixture(params=["grpc", "rest"])
def ask(request, double, exported, raw):
    """Runs a signature on the server, whatever the inputs."""
    if request.param == "grpc":
        transport = GrpcTransport(double.grpc_server, "sparsectr", None)
    else:
        transport = RestTransport(double.rest_server, "sparsectr", None)
    signatures = transport.signatures(TIMEOUT)

    def ask(name, inputs):
        outputs = signatures[name].outputs
        return transport.predict(name, inputs, outputs, TIMEOUT)

    yield ask
    answer = ask(WHOLE_PASS, raw)[PROBABILITY]
    np.testing.assert_array_equal(answer, exported.probability(raw))
    transport.close()


def _refused(ask, name, inputs):
    with pytest.raises(ServerError) as caught:
        ask(name, inputs)
    assert caught.value.code == "INVALID_ARGUMENT"
    return str(caught.value)


def _both_ways(ask, raw):
    """Returns the answers of the whole pass and of the two calls."""
    state = ask(ENCODE_USER, only(raw, "user_", "behavior_"))
    candidates = only(raw, "request_time", "candidate_")
    return (
        ask(WHOLE_PASS, raw)[PROBABILITY],
        ask(SCORE, {**state, **candidates})[PROBABILITY],
    )


def test_state_of_another_version(ask, raw):
    state = ask(ENCODE_USER, only(raw, "user_", "behavior_"))
    candidates = only(raw, "request_time", "candidate_")
    expected = ask(SCORE, {**state, **candidates})[PROBABILITY]
    state[FINGERPRINT] = state[FINGERPRINT].copy()
    state[FINGERPRINT][BAD] ^= 1
    found = ask(SCORE, {**state, **candidates})[PROBABILITY]
    assert np.isnan(found[BAD]).all()
    np.testing.assert_array_equal(found[OTHERS], expected[OTHERS])
    assert np.isfinite(expected).all()


def test_price_that_is_no_number(ask, exported, raw):
    price = raw["candidate_price"].copy()
    price[BAD] = np.nan
    changed = {**raw, "candidate_price": price}
    expected = exported.probability(changed)
    assert np.abs(expected - exported.probability(raw))[BAD].max() > 1e-5
    for found in _both_ways(ask, changed):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_history(ask, exported, raw):
    without = subset(raw, "behavior_", slice(0, 0))
    expected = exported.probability(without)
    assert expected.shape == (4, 5)
    for found in _both_ways(ask, without):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_candidates(ask, raw):
    for found in _both_ways(ask, subset(raw, "candidate_", slice(0, 0))):
        assert found.shape == (4, 0)


def test_history_of_100_000(ask, exported):
    raw = requests(4, [100_000, 41], length=100_000)[1]
    newest = subset(raw, "behavior_", slice(-MAX_HISTORY, None))
    expected = exported.probability(newest)
    for found in _both_ways(ask, raw):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["user_age", "behavior_time"])
def test_missing_tensor(name, ask, raw):
    inputs = {key: value for key, value in raw.items() if key != name}
    assert name in _refused(ask, WHOLE_PASS, inputs)


def test_unknown_tensor(request, ask, exported, raw):
    inputs = {**raw, "label": raw["candidate_price"]}
    if request.node.callspec.params["ask"] == "rest":
        # The server looks for the names that it knows.
        found = ask(WHOLE_PASS, inputs)[PROBABILITY]
        np.testing.assert_array_equal(found, exported.probability(raw))
    else:
        assert "label" in _refused(ask, WHOLE_PASS, inputs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("behavior_item", 0.5), ("candidate_price", "1"), ("user_gender", 1)],
)
def test_wrong_dtype(name, value, ask, raw):
    dtype = object if isinstance(value, str) else None
    values = np.full(raw[name].shape, value, dtype)
    _refused(ask, WHOLE_PASS, {**raw, name: values})


@pytest.mark.parametrize("signature", [WHOLE_PASS, ENCODE_USER])
def test_numbers_of_requests_that_differ(signature, ask, raw):
    inputs = raw if signature == WHOLE_PASS else only(raw, "user_", "behavior_")
    changed = {**inputs, "user_age": raw["user_age"][:1]}
    message = _refused(ask, signature, changed)
    assert "the inputs differ in B" in message
    assert "[user_age] [1] " in message


def test_histories_that_differ(ask, raw):
    changed = {**raw, "behavior_item": raw["behavior_item"][:, 1:]}
    message = "behavior_item must have the shape of behavior_time"
    assert message in _refused(ask, WHOLE_PASS, changed)


def test_malformed_example(ask, raw):
    good = examples_of(raw)
    expected = ask(EXAMPLES, {"examples": good})[PROBABILITY]
    changed = good.copy()
    changed[BAD] = b""
    found = ask(EXAMPLES, {"examples": changed})[PROBABILITY]
    assert np.isnan(found[BAD]).all()
    np.testing.assert_array_equal(found[OTHERS], expected[OTHERS])
    assert np.isfinite(expected).all()


def test_no_example(ask, raw):
    examples = examples_of(raw)
    examples[BAD] = b"\x07"
    assert "Could not parse" in _refused(ask, EXAMPLES, {"examples": examples})
