"""What a client says to bad requests and to servers that fail."""

import contextlib
import socket
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from export.client import Client
from export.client_parts.rest_transport import RestTransport
from export.client_parts.server_error import ServerError
from export.stand_in_server.serving import serving
from sparsectr.errors import InputError
from tests.export.toy_model import CANDIDATES, USER
from tests.export.toy_server import (
    TRANSPORTS,
    client,
    double,
    make_request,
    models,
    part,
    running,
    server,
)

__all__ = ["client", "double", "models", "running", "server"]


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


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
    "milliseconds": (
        {"behavior_time": [10**12 + n for n in range(5)]},
        "`behavior_time` has 1000000000004, which is after 2100.*milliseconds",
    ),
    "a request in milliseconds": (
        {"request_time": 10**12},
        "`request_time` has 1000000000000, which is after 2100.*milliseconds",
    ),
    "half of a character": (
        {"user_city": "a\ud83d"},
        r"`user_city` has half of a character.*Received: 'a\\ud83d'",
    ),
    "no time": (
        {"request_time": 0, "behavior_time": [], "behavior_brand": []},
        "`request_time` 0 is not a time in Unix seconds",
    ),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_are_not_sent(double, case, transport):
    changes, message = BAD_REQUESTS[case]
    bad = {**make_request(0), **changes}
    bad = {name: value for name, value in bad.items() if value is not None}
    with Client(getattr(double, transport), timeout_seconds=20.0) as client:
        with pytest.raises(InputError, match=f"^request 8.*{message}"):
            client.score_requests([make_request(1), bad], first_index=7)
        # The client is as good as before.
        client.score_requests([make_request(1)])
    assert len(double.calls) == 1


def test_bad_parts_of_a_request(double):
    request = make_request(1)
    user, candidates = part(request, USER), part(request, CANDIDATES)
    with Client(double.grpc_server, timeout_seconds=20.0) as client:
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


class Clock:
    """A clock that goes by sleeping alone."""

    def __init__(self):
        self.pauses = []

    def monotonic(self):
        return sum(self.pauses)

    def sleep(self, seconds):
        self.pauses.append(seconds)


def test_retries_end_with_the_deadline(double, server, monkeypatch):
    clock = Clock()
    with Client(server, timeout_seconds=20.0, retries=1000) as client:
        client.inputs()
        monkeypatch.setattr("export.client.time", clock)
        double.faults.extend([UNAVAILABLE] * 1000)
        with pytest.raises(ServerError):
            client.score_requests([make_request(1)])
    assert clock.monotonic() < 20.0
    # Each pause is about twice that before.
    assert len(clock.pauses) > 4
    assert len(double.faults) >= 1000 - 1 - len(clock.pauses)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_deadline(models, transport):
    # A double of its own, where the late call disturbs no other test.
    with (
        serving(models / "1") as slow,
        Client(getattr(slow, transport), timeout_seconds=20.0) as client,
    ):
        client.inputs()
        client.timeout_seconds = 0.2
        # It does not answer before the client has given up.
        given_up = threading.Event()
        slow.before_call = given_up.wait
        with pytest.raises(ServerError, match=r"^DEADLINE_EXCEEDED:") as caught:
            client.score_requests([make_request(1)])
        given_up.set()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        client.timeout_seconds = 20.0
        # The late answer is not taken for that of the next request.
        [score] = client.score_requests([make_request(2, candidates=1)])
    assert score.shape == (1,)


def test_a_connection_may_take_its_time(double):
    with (
        far_from(double.grpc_server, seconds=0.3) as server,
        Client(server, retries=0, timeout_seconds=20.0) as client,
    ):
        assert len(client.score_requests([make_request(1)])) == 1


@contextlib.contextmanager
def far_from(server, seconds):
    """A way to a server on which the first bytes take a while."""

    def copy(source, target):
        # Either end may go away first.
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def serve():
        near, _ = listener.accept()
        time.sleep(seconds)
        host, port = server.split(":")
        with near, socket.create_connection((host, int(port))) as far:
            answers = threading.Thread(target=copy, args=(far, near))
            answers.start()
            copy(near, far)
            answers.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_closed_client(client):
    client.score_requests([make_request(1)])
    client.close()
    with pytest.raises(ValueError, match=r"^The client of .* is closed\.$"):
        client.score_requests([make_request(1)])


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_nobody_is_there(prefix):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"{prefix}127.0.0.1:{free.getsockname()[1]}"
        with (
            Client(server, retries=1, timeout_seconds=60.0) as client,
            pytest.raises(ServerError, match=r"^UNAVAILABLE: "),
        ):
            client.score_requests([make_request(1)])


def test_connections_that_were_lost(models):
    with serving(models / "1") as double:
        client = Client(double.rest_server, retries=0, timeout_seconds=20.0)
        client.inputs()
        # Both calls are under way before one is answered.
        double.before_call = threading.Barrier(2, timeout=60.0).wait
        with futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(client.score_requests, [[make_request(1)]] * 2))
    # Both open connections are seen to be dead before anything is sent on
    # them: with a server at the address, nobody would notice.
    with pytest.raises(ServerError, match=r"^UNAVAILABLE: ConnectionRef"):
        client.score_requests([make_request(1)])
    client.close()


def test_connections_beside_one_without_answer():
    with falling_silent(num_connections=2) as server:
        transport = RestTransport(server, "sparsectr")
        with futures.ThreadPoolExecutor(2) as pool:
            found = list(pool.map(transport.signatures, [20.0] * 2))
        with pytest.raises(ServerError, match=r"^DEADLINE_EXCEEDED: "):
            transport.signatures(0.1)
        # What silenced one of the two may have silenced the other, so the
        # next call takes neither.
        assert [*found, transport.signatures(20.0)] == [{}] * 3
        transport.close()


@contextlib.contextmanager
def falling_silent(num_connections):
    """A server whose connections answer one request, then nothing more.

    The first answers come when so many connections are there.
    """
    content = b'{"metadata": {"signature_def": {"signature_def": {}}}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)

    def serve():
        kept = [listener.accept()[0] for _ in range(num_connections)]
        for connection in kept:
            connection.recv(65536)
            connection.sendall(head + content)
        kept.append(listener.accept()[0])
        kept[-1].recv(65536)
        kept[-1].sendall(head + content)
        for connection in kept:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60.0)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


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
        Client(server, timeout_seconds=20.0) as client,
        pytest.raises(ServerError, match=f"^UNKNOWN: .*{message}"),
    ):
        client.inputs()


def test_a_proxy_without_json():
    with (
        answering(b"502 Bad Gateway", b"<html>") as server,
        Client(server, timeout_seconds=20.0) as client,
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
    ("arguments", "code", "what"),
    [
        ({"model_name": "other/model"}, "NOT_FOUND", "request: other/model"),
        ({"version": 9}, "NOT_FOUND", "version 9"),
        ({"label": "other/label"}, "INVALID_ARGUMENT", "label: other/label"),
    ],
)
def test_what_is_not_served(server, arguments, code, what):
    with (
        Client(server, timeout_seconds=20.0, **arguments) as client,
        pytest.raises(ServerError, match=f"^{code}: .*{what}") as caught,
    ):
        client.score_requests([make_request(1)])
    assert caught.value.code == code


def test_a_signature_that_is_not_there(client):
    with pytest.raises(
        ServerError,
        match=r"^FAILED_PRECONDITION: the model has no signature 'other'. It "
        r"has: encode_user, score, serving_default$",
    ):
        client.inputs("other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout_seconds": 0}, "`timeout_seconds` must be positive"),
        ({"retries": -1}, "`retries` must not be negative"),
        ({"label": ""}, "`label` must not be empty"),
        ({"label": "a", "version": 1}, "comes without a version"),
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
