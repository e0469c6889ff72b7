"""Waiting for workers, without TensorFlow."""

import concurrent.futures
import contextlib
import socket
import time

import pytest

from sparsectr.errors import InputError
from sparsectr.training.cluster_spec import ClusterSpec, Task
from sparsectr.training.rendezvous import wait_for_others


@pytest.fixture
def specs():
    """What each of three workers knows."""
    with contextlib.ExitStack() as probes:
        ports = [
            probes.enter_context(
                socket.create_server(("localhost", 0))
            ).getsockname()[1]
            for _ in range(3)
        ]
    tasks = tuple(
        Task("worker", index, f"localhost:{port}")
        for index, port in enumerate(ports)
    )
    return [ClusterSpec(tasks, rank) for rank in range(3)]


def test_late_worker(specs, capsys):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = [pool.submit(wait_for_others, s, 60, 0.6) for s in specs[:2]]
        time.sleep(1.5)
        assert not any(future.done() for future in early)
        # It stays, as TensorFlow does.
        with socket.create_server(("localhost", specs[2].own.port)):
            for future in early:
                future.result()
    lines = capsys.readouterr().err.splitlines()
    waits = f"{specs[0].own} waits for {specs[2].own}: "
    assert any(line.startswith(waits) for line in lines)


def test_missing_worker(specs):
    with (
        socket.create_server(("localhost", specs[1].own.port)),
        pytest.raises(ConnectionError) as error,
    ):
        wait_for_others(specs[0], 0.2)
    assert f"has waited 0 s for {specs[2].own}." in str(error.value)
    assert str(specs[1].own) not in str(error.value)


def test_port_in_use(specs):
    port = specs[0].own.port
    with (
        socket.create_server(("", port)),
        pytest.raises(InputError, match=f"port {port} of TF_CONFIG"),
    ):
        wait_for_others(specs[0], 1)
