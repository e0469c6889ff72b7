import contextlib
import json
import math
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from export.buckets import Buckets
from export.client import Client
from export.request_table import write_requests
from export.server_error import ServerError
from export.user_state import StaleStateError, UserState
from sparsectr.errors import InputError
from tests.commands import ROOT, assert_refused, run
from tests.export.serving_double import serving
from tests.export.toy_model import CANDIDATES, USER, save_toy_model

BUCKETS = Buckets(
    history_lengths=(4, 8), num_candidates=(3, 6), batch_sizes=(1, 2)
)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
TRANSPORTS = ["grpc_server", "rest_server"]


def make_request(seed, length=5, candidates=2):
    random = np.random.default_rng(seed)
    price = random.normal(size=candidates).astype(np.float32)
    price[:1] = np.nan
    return {
        "user_city": f"city {seed} é",
        "behavior_brand": random.integers(-(2**63), 2**63 - 1, length),
        "behavior_time": np.sort(random.integers(1, 10**9, length)),
        "request_time": 10**9 + seed,
        "candidate_brand": random.integers(-(2**63), 2**63 - 1, candidates),
        "candidate_price": price,
    }


def part(request, names):
    return {name: request[name] for name in names}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_toy_model(folder / "1", fingerprint=2**53 - 1)
    save_toy_model(folder / "2", fingerprint=5)
    save_toy_model(folder / "3", fingerprint=6, width=3)
    return folder


@pytest.fixture(scope="module")
def running(models):
    with serving(models / "1") as double:
        yield double


@pytest.fixture
def double(running, models):
    yield running
    running.faults.clear()
    running.delay_seconds = 0.0
    running.calls.clear()
    if running.version != 1:
        running.load(models / "1")


@pytest.fixture(params=TRANSPORTS)
def server(request, double):
    return getattr(double, request.param)


@pytest.fixture
def client(server):
    with Client(server, buckets=BUCKETS, timeout_seconds=20.0) as client:
        yield client


def in_process(double, request):
    """The model's answer to one request, not padded."""
    inputs = {name: np.asarray(value)[None] for name, value in request.items()}
    inputs["user_city"] = np.array([request["user_city"].encode()], object)
    return double.run("serving_default", inputs)["probability"][0]


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
        expected = in_process(double, request)
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)
    shapes = [
        (*inputs["behavior_brand"], inputs["candidate_brand"][1])
        for _, inputs in calls
    ]
    assert sorted(shapes) == [
        (1, 4, 3),
        (1, 16, 12),
        (1, 16, 18),
        (2, 4, 3),
        (2, 4, 3),
        (2, 8, 6),
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_wire_changes_no_bit(double, transport):
    # As long as its bucket, so that both compute the same sums.
    request = make_request(1, length=8, candidates=6)
    with Client(getattr(double, transport), buckets=BUCKETS) as client:
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
        expected = in_process(double, request)
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


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_what_is_no_state(content):
    with pytest.raises(ValueError, match=r"."):
        UserState.from_bytes(content)


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


def test_a_state_of_another_version_without_its_shape(double, models, server):
    request = make_request(1)
    with Client(server) as client:
        state = client.encode_user(part(request, USER))
    double.load(models / "3")
    calls = len(double.calls)
    with Client(server) as client, pytest.raises(StaleStateError):
        client.score(state, part(request, CANDIDATES))
    # Sent, it would fail all requests of its batch.
    assert len(double.calls) == calls


BAD_REQUESTS = {
    "missing": ({"candidate_brand": None}, "has no `candidate_brand`"),
    "unknown": ({"candidate_shop": [1, 2]}, "has `candidate_shop`, which is"),
    "float ids": (
        {"candidate_brand": [1.0, 2.0]},
        r"`candidate_brand` must be integers \(int64\). Received: float64",
    ),
    "bool ids": ({"candidate_brand": [True, False]}, "Received: bool"),
    "text ids": ({"candidate_brand": ["1", "2"]}, "Received: <U1"),
    "huge ids": (
        {"candidate_brand": np.array([1, 2**63], np.uint64)},
        "`candidate_brand` has a value that is not int64",
    ),
    "a number for a text": ({"user_city": 3}, "`user_city` must be text"),
    "text price": ({"candidate_price": ["a", "b"]}, "must be numbers"),
    "scalar": ({"candidate_price": 1.0}, "must be a list of values"),
    "list": ({"request_time": [10**9]}, "`request_time` must be one value"),
    "batch": ({"candidate_brand": [[1, 2]]}, r"Received: shape \(1, 2\)"),
    "ragged": ({"candidate_brand": [[1], [2, 3]]}, "different lengths"),
    "candidates": (
        {"candidate_brand": [1, 2, 3]},
        "different lengths: candidate_brand 3, candidate_price 2",
    ),
    "behaviors": (
        {"behavior_brand": [1]},
        "different lengths: behavior_brand 1, behavior_time 5",
    ),
    "padding": (
        {"behavior_time": [0, 1, 2, 3, 4]},
        "`behavior_time` has 0; times are Unix seconds",
    ),
    "order": (
        {"behavior_time": [1, 2, 3, 2, 4]},
        "not in order, oldest first: entry 3 is before entry 2",
    ),
    "same second": (
        {"behavior_time": [1, 2, 3, 4, 10**9]},
        "`request_time` 1000000000 is not after the newest behavior",
    ),
    "future": ({"request_time": 1}, "not after the newest behavior, at"),
    "no time": (
        {"request_time": 0, "behavior_time": [], "behavior_brand": []},
        "`request_time` 0 is not a time in Unix seconds",
    ),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_are_not_sent(double, case):
    changes, message = BAD_REQUESTS[case]
    bad = {**make_request(0), **changes}
    bad = {name: value for name, value in bad.items() if value is not None}
    with Client(double.grpc_server) as client:
        with pytest.raises(InputError, match=f"^request 8.*{message}"):
            client.score_requests([make_request(1), bad], first_index=7)
        # The client is as good as before.
        client.score_requests([make_request(1)])
    assert len(double.calls) == 1


def test_bad_parts_of_a_request(double):
    request = make_request(1)
    user, candidates = part(request, USER), part(request, CANDIDATES)
    with Client(double.grpc_server) as client:
        with pytest.raises(InputError, match=r"^the user has no `user_city`"):
            client.encode_user(part(user, ["behavior_brand", "behavior_time"]))
        with pytest.raises(InputError, match="user has `request_time`, which"):
            client.encode_user(request)
        state = client.encode_user(user)
        with pytest.raises(InputError, match="the request has no `candidate_b"):
            client.score(state, part(request, ["request_time"]))
        early = {**candidates, "request_time": state.newest_time}
        with pytest.raises(InputError, match="not after the newest behavior"):
            client.score(state, early)


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


def test_a_history_of_300_000(double, client):
    # More than the 4 MiB that gRPC takes by default.
    request = make_request(1, length=300_000)
    [score] = client.score_requests([request])
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
    for server in (double.grpc_server, double.rest_server):
        with Client(server) as client:
            request = {**make_request(1), "user_city": b"\xff\x00\xe9"}
            scores.append(client.score_requests([request])[0])
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("num_faults", [1, 2])
def test_unavailable_is_tried_again(double, client, num_faults):
    [expected] = client.score_requests([make_request(1)])
    double.faults.extend([UNAVAILABLE] * num_faults)
    [score] = client.score_requests([make_request(1)])
    np.testing.assert_array_equal(score, expected)
    assert not double.faults


def test_unavailable_too_often(double, client):
    client.inputs()
    double.faults.extend([UNAVAILABLE] * 4)
    with pytest.raises(ServerError, match=r"^UNAVAILABLE: a fault") as caught:
        client.score_requests([make_request(1)])
    assert caught.value.code == "UNAVAILABLE"
    assert len(double.faults) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
def test_other_errors_are_not_tried_again(double, client, fault, code):
    client.inputs()
    double.faults.extend([fault] * 2)
    with pytest.raises(ServerError, match=f"^{code}: a fault") as caught:
        client.score_requests([make_request(1)])
    assert caught.value.code == code
    assert len(double.faults) == 1


def test_retries_end_with_the_deadline(double, server):
    with Client(server, timeout_seconds=20.0, retries=1000) as client:
        client.inputs()
        client.timeout_seconds = 0.3
        double.faults.extend([UNAVAILABLE] * 1000)
        start = time.monotonic()
        with pytest.raises(ServerError):
            client.score_requests([make_request(1)])
        assert time.monotonic() - start < 5.0
    assert len(double.faults) > 900


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_deadline(models, transport):
    # A double of its own, where the late call disturbs no other test.
    with (
        serving(models / "1") as slow,
        Client(getattr(slow, transport), timeout_seconds=20.0) as client,
    ):
        client.inputs()
        client.timeout_seconds = 0.2
        slow.delay_seconds = 2.0
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"^DEADLINE_EXCEEDED:") as caught:
            client.score_requests([make_request(1)])
        assert time.monotonic() - start < 1.8
        assert caught.value.code == "DEADLINE_EXCEEDED"
        client.timeout_seconds = 20.0
        slow.delay_seconds = 0.0
        # The late answer is not taken for that of the next request.
        [score] = client.score_requests([make_request(2, candidates=1)])
    assert score.shape == (1,)


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_nobody_is_there(prefix):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"{prefix}127.0.0.1:{free.getsockname()[1]}"
        with (
            Client(server, retries=1, timeout_seconds=5.0) as client,
            pytest.raises(ServerError, match=r"^UNAVAILABLE: "),
        ):
            client.score_requests([make_request(1)])


def test_connections_that_were_lost(models):
    with serving(models / "1") as double:
        client = Client(double.rest_server, retries=0, timeout_seconds=20.0)
        client.inputs()
        double.delay_seconds = 0.3
        with futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(client.score_requests, [[make_request(1)]] * 2))
    # One open connection of two is found dead, and both are given up: a
    # retry would else meet the other.
    errors = []
    for _ in range(2):
        with pytest.raises(ServerError, match=r"^UNAVAILABLE: ") as caught:
            client.score_requests([make_request(1)])
        errors.append(str(caught.value))
    client.close()
    assert "ConnectionRefusedError" not in errors[0]
    assert "ConnectionRefusedError" in errors[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"hello", "not one of TensorFlow Serving: JSONDecodeError"),
        (b'{"metadata": []}', "not one of TensorFlow Serving: TypeError"),
    ],
)
def test_another_server(answer, message):
    with (
        answering(b"200 OK", answer) as server,
        Client(server) as client,
        pytest.raises(ServerError, match=f"^UNKNOWN: .*{message}"),
    ):
        client.inputs()


def test_a_proxy_without_json():
    with (
        answering(b"502 Bad Gateway", b"<html>") as server,
        Client(server) as client,
        pytest.raises(ServerError, match=r"<html> \(HTTP status 502\)"),
    ):
        client.inputs()


@contextlib.contextmanager
def answering(status, content):
    """A server that says the same to everything, once."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 %s\r\nConnection: close\r\n\r\n%s"
                % (status, content)
            )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"model_name": "other/model"}, "NOT_FOUND"),
        ({"version": 9}, "NOT_FOUND"),
    ],
)
def test_what_is_not_served(server, arguments, code):
    with (
        Client(server, **arguments) as client,
        pytest.raises(ServerError, match=f"^{code}: ") as caught,
    ):
        client.score_requests([make_request(1)])
    assert caught.value.code == code


def test_a_named_version(server):
    with Client(server, version=1) as client:
        assert len(client.score_requests([make_request(1)])) == 1


def test_a_signature_that_is_not_there(client):
    with pytest.raises(
        ServerError,
        match=r"^FAILED_PRECONDITION: the model has no signature 'other'. It "
        r"has: encode_user, score, serving_default$",
    ):
        client.inputs("other")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout_seconds": 0}, "`timeout_seconds` must be positive"),
        ({"retries": -1}, "`retries` must not be negative"),
        ({"server": "ftp://a:1"}, "ftp://a:1 is not like http://host:8501"),
        ({"server": "http://"}, "is not like"),
        ({"server": "http://a:b"}, "http://a:b: Port"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Client(**{"server": "localhost:1", **arguments})


def test_without_grpcio(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(InputError, match=r"pip install 'sparsectr\[client\]'"):
        Client("localhost:8500")
    Client("http://localhost:8501").close()


def test_tensorflow_is_not_needed(double):
    request = make_request(1)
    values = {name: np.asarray(v).tolist() for name, v in request.items()}
    code = (
        "import json, sys\n"
        "sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from export.client import Client\n"
        "request = json.loads(sys.argv[1])\n"
        "for server in sys.argv[2:]:\n"
        "    with Client(server, timeout_seconds=20) as client:\n"
        "        print(client.score_requests([request])[0].tolist())\n"
    )
    servers = [double.grpc_server, double.rest_server]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(values), *servers],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == second
    np.testing.assert_allclose(
        json.loads(first), in_process(double, request), atol=1e-6
    )


@pytest.fixture
def requests_file(double, tmp_path):
    requests = [make_request(seed, seed, seed % 4) for seed in range(9)]
    with Client(double.grpc_server) as client:
        write_requests(tmp_path / "in.parquet", requests, client.inputs())
    return requests, tmp_path


def test_the_command_scores_a_file(double, server, requests_file):
    requests, folder = requests_file
    table = pq.read_table(folder / "in.parquet")
    table = table.append_column("note", pa.array(map(str, range(9))))
    pq.write_table(table, folder / "in.parquet")
    signature = {"buckets": BUCKETS.to_dict()}
    (folder / "signature.json").write_text(json.dumps(signature))
    double.calls.clear()
    done = run(
        "export.client",
        f"--server={server}",
        "--input=in.parquet",
        "--output=out.parquet",
        "--signature=signature.json",
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out.parquet: scores of 9 requests\n"
    shapes = {inputs["behavior_time"] for _, inputs in double.calls}
    assert shapes == {(2, 4), (1, 4), (2, 8)}
    scored = pq.read_table(folder / "out.parquet")
    rows = scored.drop_columns("probability")
    assert rows.schema == table.schema
    # As text, where NaN is equal to NaN.
    assert str(rows.to_pylist()) == str(table.to_pylist())
    assert scored.schema.field("probability").type == pa.list_(pa.float32())
    scores = scored.column("probability").to_pylist()
    for request, score in zip(requests, scores, strict=True):
        np.testing.assert_allclose(
            score, in_process(double, request), rtol=0, atol=1e-6
        )
    assert sorted(path.name for path in folder.iterdir()) == [
        "in.parquet",
        "out.parquet",
        "signature.json",
    ]


def test_the_command_refuses(command, double, requests_file):
    _, folder = requests_file

    def refuse(*parts, **changes):
        flags = {
            "server": double.grpc_server,
            "input": folder / "in.parquet",
            "output": folder / "out.parquet",
            **changes,
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        done = command("export.client", *arguments)
        assert_refused(done, *parts)
        assert not (folder / "out.parquet").exists()

    refuse(f"{double.grpc_server}: NOT_FOUND: ", model="other")
    refuse("absent.parquet", input=folder / "absent.parquet")
    refuse(
        f"there is no folder {folder / 'none'}",
        output=folder / "none" / "out.parquet",
    )
    double.faults.extend([grpc.StatusCode.INTERNAL])
    refuse("INTERNAL: a fault of the test")
    bad = pq.read_table(folder / "in.parquet").to_pylist()
    bad[8]["behavior_time"][3] = 10**9 + 1
    pq.write_table(pa.Table.from_pylist(bad), folder / "bad.parquet")
    refuse(
        "bad.parquet: request 8: `behavior_time` is not in order",
        input=folder / "bad.parquet",
    )
    (folder / "signature.json").write_text("{}")
    refuse("signature.json has no buckets", signature=folder / "signature.json")
