"""What a client gets of a server: scores and states."""

import json
import math
import subprocess
import sys
from concurrent import futures

import grpc
import numpy as np
import pytest

from data_pipelines.requests.padding import check_request
from data_pipelines.requests.tensor_type import TensorType
from export.client import Client
from export.client_parts.server_error import ServerError
from export.client_parts.user_state import StaleStateError, UserState
from sparsectr.errors import InputError
from tests.commands import ROOT
from tests.export.toy_model import CANDIDATES, USER
from tests.export.toy_server import (
    BUCKETS,
    TRANSPORTS,
    client,
    double,
    in_process,
    make_request,
    models,
    newest,
    part,
    running,
    server,
)

__all__ = ["client", "double", "models", "running", "server"]


def test_scores_are_those_in_process(double, client):
    lengths = [0, 1, 4, 5, 8, 9, 16, 3, 2]
    candidates = [0, 1, 3, 4, 6, 7, 13, 3, 1]
    requests = [
        make_request(seed, *shape)
        for seed, shape in enumerate(zip(lengths, candidates, strict=True))
    ]
    scores = client.score_requests(requests)
    calls = list(double.calls)
    for request, score, count in zip(requests, scores, candidates, strict=True):
        assert score.shape == (count,)
        assert score.dtype == np.float32
        expected = in_process(double, newest(request, 8))
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)
    shapes = [
        (*inputs["behavior_brand"], inputs["candidate_brand"][1])
        for _, inputs in calls
    ]
    assert sorted(shapes) == [
        (1, 4, 3),
        (1, 8, 12),
        (1, 8, 18),
        (4, 4, 3),
        # Two requests, and the last of them twice more.
        (4, 8, 6),
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_wire_changes_no_bit(double, transport):
    # As long as its bucket, so that both compute the same sums.
    request = make_request(1, length=8, candidates=6)
    with Client(
        getattr(double, transport), buckets=BUCKETS, timeout_seconds=20.0
    ) as client:
        [score] = client.score_requests([request])
        state = client.encode_user(part(request, USER))
    np.testing.assert_array_equal(score, in_process(double, request))
    tensors = double.run(
        "encode_user",
        {
            "user_city": np.array([request["user_city"].encode()], object),
            "behavior_brand": request["behavior_brand"][None],
            "behavior_time": request["behavior_time"][None],
        },
    )
    assert state.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(state.tensors[name], tensor)


@pytest.mark.parametrize("length", [0, 3, 8, 9])
def test_encoded_once_and_scored_often(double, client, length):
    request = make_request(length, length, candidates=7)
    state = client.encode_user(part(request, USER))
    for later in (0, 86400):
        request["request_time"] += later
        score = client.score(state, part(request, CANDIDATES))
        expected = in_process(double, newest(request, 8))
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)
        assert score.shape == (7,)
    names = [name for name, _ in double.calls if name != "serving_default"]
    assert names == ["encode_user", "score", "score"]


def test_a_state_goes_through_a_cache(client):
    request = make_request(1)
    state = client.encode_user(part(request, USER))
    again = UserState.from_bytes(state.to_bytes())
    assert again.newest_time == state.newest_time
    assert state.newest_time == request["behavior_time"][-1]
    candidates = part(request, CANDIDATES)
    np.testing.assert_array_equal(
        client.score(again, candidates), client.score(state, candidates)
    )


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00"]
)
def test_what_is_no_state(content):
    with pytest.raises(ValueError, match=r"^Not a user state"):
        UserState.from_bytes(content)


def test_a_damaged_state_is_none():
    content = UserState({"state_values": np.arange(3.0)}, 7).to_bytes()
    assert UserState.from_bytes(content).newest_time == 7
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        for damaged in (bytes(changed), content[:place]):
            with pytest.raises(ValueError, match=r"^Not a user state"):
                UserState.from_bytes(damaged)


@pytest.mark.parametrize("version", [2, 3])
def test_a_state_of_another_version_is_refused(double, models, client, version):
    request = make_request(1)
    candidates = part(request, CANDIDATES)
    state = client.encode_user(part(request, USER))
    double.load(models / str(version))
    with pytest.raises(StaleStateError, match="Encode the user again"):
        client.score(state, candidates)
    # The client goes on with the version that is there now.
    state = client.encode_user(part(request, USER))
    np.testing.assert_allclose(
        client.score(state, candidates), in_process(double, request), atol=1e-6
    )


def test_a_state_that_fits_is_not_at_fault(double, client):
    request = make_request(1)
    state = client.encode_user(part(request, USER))
    double.faults.append(grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(ServerError, match=r"^INVALID_ARGUMENT: a fault"):
        client.score(state, part(request, CANDIDATES))


@pytest.mark.parametrize("version", [2, 3])
def test_a_label_moves(double, models, server, version):
    double.load(models / "1", models / str(version))
    double.labels["stable"] = 1
    request = make_request(1)
    user, candidates = part(request, USER), part(request, CANDIDATES)
    with Client(server, label="stable", timeout_seconds=20.0) as client:
        old = client.encode_user(user)
        before = client.score(old, candidates)
        double.labels["stable"] = version
        with pytest.raises(StaleStateError, match="Encode the user again"):
            client.score(old, candidates)
        new = client.encode_user(user)
        after = client.score(new, candidates)
    fingerprints = [state.tensors["state_fingerprint"] for state in (old, new)]
    assert fingerprints == [2**53 - 1, {2: 5, 3: 6}[version]]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


def test_a_state_of_another_version_without_its_shape(double, models, server):
    request = make_request(1)
    with Client(server, timeout_seconds=20.0) as client:
        state = client.encode_user(part(request, USER))
    double.load(models / "3")
    calls = len(double.calls)
    with (
        Client(server, timeout_seconds=20.0) as client,
        pytest.raises(StaleStateError),
    ):
        client.score(state, part(request, CANDIDATES))
    # Sent, it would fail all requests of its batch.
    assert len(double.calls) == calls


def test_what_may_be_in_a_request(double, client):
    request = make_request(1)
    changes = {
        "lists": {"candidate_brand": [7, 8], "candidate_price": [1, math.nan]},
        "narrow": {"candidate_brand": np.array([1, 2], np.uint8)},
        "bytes": {"user_city": b"\xff\x00"},
        "equal times": {"behavior_time": [5, 5, 5, 6, 6]},
        "infinite": {"candidate_price": [math.inf, -math.inf]},
    }
    for name, change in changes.items():
        [score] = client.score_requests([{**request, **change}])
        assert score.shape == (2,), name
        assert np.isfinite(score).all(), name


def test_a_history_of_300_000(double, server):
    # More than the 4 MiB that gRPC takes by default.
    request = make_request(1, length=300_000)
    with Client(server, timeout_seconds=20.0) as client:
        [score] = client.score_requests([request])
    # A client that does not know what the model reads sends all.
    [(_, shapes)] = double.calls
    assert shapes["behavior_time"] == (1, 293 * 1024)
    expected = in_process(double, request)
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)


def test_an_answer_of_many_mib(double):
    request = make_request(1, candidates=1_200_000)
    with Client(double.grpc_server, timeout_seconds=20.0) as client:
        [score] = client.score_requests([request])
    assert score.shape == (1_200_000,)
    np.testing.assert_allclose(score, in_process(double, request), atol=1e-6)


def test_bytes_that_are_no_text_arrive(double):
    scores = []
    for transport in TRANSPORTS:
        with Client(getattr(double, transport), timeout_seconds=20.0) as client:
            request = {**make_request(1), "user_city": b"\xff\x00\xe9"}
            scores.append(client.score_requests([request])[0])
    np.testing.assert_array_equal(*scores)


def test_a_text_keeps_its_zeros(double, client):
    request = {**make_request(1), "user_city": "a\0"}
    [score] = client.score_requests([request])
    expected = in_process(double, request)
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)
    other = in_process(double, {**request, "user_city": "a"})
    assert (abs(score - other) > 1e-3).all()


def test_lists_of_texts():
    inputs = {"candidate_name": TensorType("string", (-1, -1))}
    names = ["a\0", b"b\0", "", "longer"]
    arrays = check_request({"candidate_name": names}, inputs, "it")
    assert arrays["candidate_name"].tolist() == names
    for mixed in (["a", 3], ["a", None], ["a", math.nan], [["a"], ["b", "c"]]):
        with pytest.raises(InputError, match="`candidate_name` must be text"):
            check_request({"candidate_name": mixed}, inputs, "it")


def test_a_named_version(double, models, server):
    double.load(models / "1", models / "2")
    with Client(server, version=1, timeout_seconds=20.0) as client:
        state = client.encode_user(part(make_request(1), USER))
    assert state.tensors["state_fingerprint"] == 2**53 - 1


def test_inputs_are_those_of_the_server(client):
    inputs = client.inputs("score")
    assert inputs["state_values"] == ("float32", (-1, 2))
    assert inputs["candidate_brand"] == ("int64", (-1, -1))
    assert client.inputs()["user_city"] == ("string", (-1,))


def test_threads_share_a_client(double, client):
    requests = [make_request(seed, 8, 6) for seed in range(8)]
    expected = [client.score_requests([request])[0] for request in requests]
    with futures.ThreadPoolExecutor(8) as pool:
        scores = list(
            pool.map(lambda r: client.score_requests([r])[0], requests * 4)
        )
    for score, right in zip(scores, expected * 4, strict=True):
        np.testing.assert_array_equal(score, right)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_little_is_needed(double, transport):
    absent = ["tensorflow", "keras", "pyarrow", "pandas", "absl"]
    absent.append("grpc" if transport == "rest_server" else "urllib3")
    request = make_request(1)
    values = {name: np.asarray(v).tolist() for name, v in request.items()}
    code = (
        "import json, sys\n"
        "server, request, *absent = sys.argv[1:]\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from export.client import Client\n"
        "with Client(server, timeout_seconds=20) as client:\n"
        "    [score] = client.score_requests([json.loads(request)])\n"
        "print(score.tolist())\n"
    )
    server = getattr(double, transport)
    done = subprocess.run(
        [sys.executable, "-c", code, server, json.dumps(values), *absent],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == ""
    np.testing.assert_allclose(
        json.loads(done.stdout), in_process(double, request), atol=1e-6
    )
