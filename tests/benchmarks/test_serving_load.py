"""Rising load: a made server, made answers, and as a user runs it."""

import concurrent.futures
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc")

from benchmarks.serving.open_loop import (  # noqa: E402
    Answered,
    OpenLoop,
    step_of,
)
from benchmarks.serving_load import (  # noqa: E402
    Workload,
    find_saturation,
    growth_of,
    has_failed,
    soak_at,
    table,
)
from sparsectr.errors import InputError  # noqa: E402
from tests import commands  # noqa: E402

WORKLOAD = Workload(
    path="whole",
    num_behaviors=7,
    num_candidates=5,
    num_rows=50,
    start_rate=10.0,
    growth=2.0,
    step_seconds=3.0,
    max_steps=6,
    timeout=0.5,
    soak_share=0.8,
    soak_minutes=1.0,
)


class _Server:
    """Answers a request with itself.

    Those behind `answered_at_once` wait until `held_until` requests are there.
    """

    def __init__(self) -> None:
        self.answered_at_once = 0
        self.held_until = 0
        self.wrong_answers = False
        self.refuses = False
        self.requests: list[bytes] = []
        self._arrived = threading.Condition()
        self._is_stopped = False
        self._pool = concurrent.futures.ThreadPoolExecutor(64)
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def answer(self, request: bytes, context: Any) -> bytes:
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
            if len(self.requests) > self.answered_at_once:
                self._arrived.wait_for(
                    lambda: (
                        self._is_stopped
                        or len(self.requests) >= self.held_until
                    )
                )
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "a fault of the test")
        return b"" if self.wrong_answers else request

    def stop(self) -> None:
        with self._arrived:
            self._is_stopped = True
            self._arrived.notify_all()
        self._server.stop(None).wait()
        self._pool.shutdown()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: _Server) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        assert details.method.endswith("PredictionService/Predict")
        return grpc.unary_unary_rpc_method_handler(self._server.answer)


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    yield made
    made.stop()


@pytest.fixture
def loop(server: _Server) -> Iterator[OpenLoop]:
    made = OpenLoop(server.address, [b"one", b"another"], timeout=60.0)
    yield made
    made.close()


def test_sends_at_its_rate(server: _Server, loop: OpenLoop) -> None:
    server.requests.clear()
    found = loop.run(rate=100.0, seconds=0.5)
    assert len(found) == 50
    # And one before, behind what the last rate has left.
    assert len(server.requests) == 51
    assert set(server.requests) == {b"one", b"another"}
    assert all(a.error == "" for a in found)
    assert all(0.0 <= a.due <= min(0.5, a.sent) <= a.done for a in found)


def test_does_not_wait_for_answers(server: _Server) -> None:
    loop = OpenLoop(server.address, [b"one"], timeout=60.0)
    # One comes before the others, behind what the last rate has left.
    server.answered_at_once = len(server.requests) + 1
    server.held_until = server.answered_at_once + 40
    found = loop.run(rate=200.0, seconds=0.2)
    loop.close()
    assert [a.error for a in found] == [""] * 40
    assert max(a.sent for a in found) < min(a.done for a in found)


def test_a_server_that_is_silent_is_saturated(server: _Server) -> None:
    loop = OpenLoop(server.address, [b"one"], timeout=2.0)
    server.answered_at_once = len(server.requests) + 1
    server.held_until = 2**31
    step = step_of(200.0, loop.run(rate=200.0, seconds=0.05))
    loop.close()
    assert step.errors == {"DEADLINE_EXCEEDED": 10}
    assert (step.achieved, step.p99) == (0.0, None)
    assert step.is_saturated(least_share=0.95)


def test_what_waits_counts_from_when_it_was_due() -> None:
    step = step_of(10.0, [Answered(due=0.0, sent=0.3, done=0.4, error="")])
    assert (step.p99, step.p99_late) == (400.0, 300.0)


def test_counts_refusals_and_wrong_answers(
    server: _Server, loop: OpenLoop
) -> None:
    server.refuses = True
    step = step_of(50.0, loop.run(rate=50.0, seconds=0.1))
    assert step.errors == {"UNAVAILABLE": 5}
    assert (step.achieved, step.p50) == (0.0, None)
    server.refuses, server.wrong_answers = False, True
    step = step_of(50.0, loop.run(rate=50.0, seconds=0.1))
    assert step.errors == {"SHORT": 5}


def test_a_server_that_refuses_is_bad_input(server: _Server) -> None:
    server.refuses = True
    with pytest.raises(InputError, match="answers UNAVAILABLE: a fault"):
        OpenLoop(server.address, [b"one"], timeout=60.0)


def _answered(rate: float, capacity: float, seconds: float) -> list[Answered]:
    """What a server does that answers at most `capacity` a second."""
    done, found = 0.0, []
    for number in range(round(rate * seconds)):
        due = number / rate
        done = max(due, done) + 1.0 / capacity
        found.append(Answered(due, due, done, ""))
    return found


def test_finds_the_last_rate_that_is_followed() -> None:
    rates = []

    def run(rate: float, seconds: float) -> list[Answered]:
        rates.append(rate)
        return _answered(rate, 50.0, seconds)

    steps, saturation = find_saturation(WORKLOAD, run)
    # Twice as many until it is too much, then halfway: 50 answered are less
    # than 95 % of 60 and of 55.
    assert rates == [10.0, 20.0, 40.0, 80.0, 60.0, 50.0, 55.0]
    assert saturation == 50.0
    assert [step.offered for step in steps] == sorted(rates)
    assert steps[-1].achieved == pytest.approx(50.0, rel=0.01)
    assert steps[0].p50 == pytest.approx(20.0)


def test_a_late_answer_is_no_saturation() -> None:
    found = _answered(10.0, 50.0, 10.0)
    found[-1] = found[-1]._replace(done=found[-1].due + 1.0)
    step = step_of(10.0, found)
    assert step.achieved == pytest.approx(9.9)
    assert not step.is_saturated(least_share=0.95)
    late = [a._replace(done=a.due + 1.0) for a in found]
    assert step_of(10.0, late).achieved == pytest.approx(9.1)


def test_may_find_no_end() -> None:
    steps, saturation = find_saturation(
        WORKLOAD, lambda rate, seconds: _answered(rate, 1e6, seconds)
    )
    assert (len(steps), saturation) == (6, None)


def test_refuses_a_first_rate_that_is_too_high() -> None:
    with pytest.raises(InputError, match="--start_rate: 10 requests a second"):
        find_saturation(
            WORKLOAD, lambda rate, seconds: _answered(rate, 5.0, seconds)
        )


class _Process:
    """A server whose memory grows."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = list(sizes)

    def resident_bytes(self) -> int:
        return self._sizes.pop(0)


def _soak(sizes: tuple[int, ...], errors: int = 0) -> dict[str, Any]:
    def run(rate: float, seconds: float) -> list[Answered]:
        found = _answered(rate, 50.0, seconds)
        failed = [a._replace(error="UNAVAILABLE") for a in found[:errors]]
        return failed + found[errors:]

    return soak_at(8.0, float(len(sizes)), run, _Process(*sizes))


@pytest.mark.parametrize(
    ("sizes", "errors", "failed"),
    [
        ((100, 103, 104, 104, 104), 0, False),
        ((100, 103, 106, 109, 112), 0, True),
        ((100, 100, 100, 100, 100), 1, True),
    ],
)
def test_soak_fails_on_errors_and_growth(
    sizes: tuple[int, ...], errors: int, failed: bool
) -> None:
    soak = _soak(sizes, errors)
    assert soak["num_requests"] == 5 * 60 * 8
    assert soak["num_errors"] == 5 * errors
    assert soak["memory_growth"] == pytest.approx(sizes[-1] / 100 - 1)
    assert [part["minute"] for part in soak["minutes"]] == [1, 2, 3, 4, 5]
    assert has_failed(soak) == failed


def test_growth_needs_known_sizes() -> None:
    assert growth_of([None, None]) is None
    assert growth_of([100]) is None
    assert growth_of([100, 150]) == pytest.approx(0.5)
    assert not has_failed(None)


def _result() -> dict[str, Any]:
    steps, saturation = find_saturation(
        WORKLOAD, lambda rate, seconds: _answered(rate, 50.0, seconds)
    )
    return {
        "workload": dataclasses.asdict(WORKLOAD),
        "steps": [dataclasses.asdict(step) for step in steps],
        "saturation": saturation,
        "soak": _soak((100, 100, 100, 100, 107)),
        "environment": {"gpus": [], "processor": "made-up", "cpu_cores": 2},
    }


def test_table_says_where_it_ends_and_what_grew() -> None:
    lines = table(_result()).splitlines()
    assert lines[1].split() == ["10", "10", "20", "20", "20", "0"]
    assert "Saturation: 50 requests a second." in lines
    assert "Soak: 2,400 requests at 8 a second, 0 errors (wanted: 0)." in lines
    assert lines[-1].startswith("Memory of the server: +7.0% from")


def test_draws_rates_and_memory(tmp_path: Path) -> None:
    serving_plot = pytest.importorskip("benchmarks.serving.plot")
    from matplotlib import image

    result = _result()
    latency, over_time = serving_plot.load_figure(result).axes
    lines = {line.get_label(): line for line in latency.lines}
    assert lines.keys() == {"p50", "p99", "saturation"}
    rates = [step["offered"] for step in result["steps"]]
    assert list(lines["p50"].get_xdata()) == rates
    assert lines["saturation"].get_xdata()[0] == 50.0
    (memory,) = over_time.lines
    assert list(memory.get_xdata()) == [1, 2, 3, 4, 5]
    path = tmp_path / "plot.png"
    serving_plot.draw_load(result, path)
    pixels = image.imread(path)
    assert pixels.shape[:2] == (450, 1200)
    assert pixels.std() > 0.05


def test_draws_no_memory_without_a_soak() -> None:
    serving_plot = pytest.importorskip("benchmarks.serving.plot")
    result = {**_result(), "soak": None}
    _, over_time = serving_plot.load_figure(result).axes
    assert not over_time.get_visible()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["whole", "score"])
def test_loads_the_double(path: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_serving")
    output = tmp_path / "result.json"
    result = commands.run(
        "benchmarks.serving_load",
        f"--path={path}",
        "--num_behaviors=16",
        "--num_candidates=5",
        "--num_rows=50",
        "--start_rate=20",
        "--growth=4",
        "--step_seconds=2",
        "--soak_minutes=0.1",
        f"--output={output}",
        cwd=tmp_path,
    )
    found = json.loads(output.read_text())
    assert found["soak"]["num_errors"] == 0
    assert found["soak"]["minutes"][0]["server_bytes"] > 2**20
    assert found["saturation"] >= 20.0
    assert result.returncode == int(has_failed(found["soak"]))
    assert "Saturation:" in result.stdout
