"""Requests that come when they come, whether or not the last one is answered.

A closed loop, which sends the next request after the last answer, never sees
a queue: a slow server slows its own load down. Here arrivals are random
(a Poisson process) and a request's time counts from when it was due.
"""

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring.request_times import PERCENTILES
from sparsectr.errors import InputError

_PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Answered(NamedTuple):
    """One request that was sent.

    Attributes:
        due: When it should have been sent, in seconds from the start.
        sent: When it was.
        done: When its answer was there.
        error: A gRPC status, "SHORT" for an answer of a wrong size, or "".
    """

    due: float
    sent: float
    done: float
    error: str


def import_grpc() -> ModuleType:
    """Returns gRPC.

    Raises:
        InputError: If grpcio is not installed.
    """
    try:
        import grpc
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        raise InputError(
            "This needs grpcio, which the extra `client` installs: "
            "pip install 'sparsectr[client]'"
        ) from error
    return grpc


class OpenLoop:
    """A source of requests at a chosen rate.

    Args:
        server: host:port.
        requests: Serialized `PredictRequest` messages, sent in turn.
        timeout: Seconds that a request may take.

    Raises:
        InputError: If one of the requests is refused, or grpcio is not
            installed.
    """

    def __init__(
        self, server: str, requests: Sequence[bytes], timeout: float
    ) -> None:
        grpc = self._grpc = import_grpc()
        self._channel = grpc.insecure_channel(
            server,
            [
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        # Bytes as they are: making and reading messages is not the question
        # here, and would take time from the server beside.
        self._call = self._channel.unary_unary(_PREDICT)
        self._requests = requests
        self._timeout = timeout
        self._generator = np.random.default_rng(0)
        try:
            # The first request of a shape takes longer.
            self._sizes = [len(self._call(r, timeout=60.0)) for r in requests]
        except grpc.RpcError as error:
            raise InputError(
                f"{server} answers {error.code().name}: {error.details()}"
            ) from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def run(self, rate: float, seconds: float) -> list[Answered]:
        """Sends requests, and returns when all are answered or given up.

        Args:
            rate: Requests a second.
            seconds: For how long; one request is sent at least.
        """
        # Answered behind whatever the last rate has left in the queue.
        with contextlib.suppress(self._grpc.RpcError):
            self._call(self._requests[0], timeout=60.0)
        count = max(1, round(rate * seconds))
        # A Poisson process of which it is known how many arrive.
        dues = np.sort(self._generator.uniform(0.0, count / rate, count))
        answered: list[Answered] = []
        left = threading.Semaphore(0)
        start = time.perf_counter()
        for number, due in enumerate(dues.tolist()):
            time.sleep(max(0.0, start + due - time.perf_counter()))
            index = number % len(self._requests)
            sent = time.perf_counter() - start

            def finish(
                error: str, due: float = due, sent: float = sent
            ) -> None:
                done = time.perf_counter() - start
                answered.append(Answered(due, sent, done, error))
                left.release()

            self._send(index, finish)
        for _ in range(count):
            left.acquire()
        return answered

    def _send(self, index: int, finish: Callable[[str], None]) -> None:
        future = self._call.future(self._requests[index], timeout=self._timeout)

        def on_answer(future: Any) -> None:
            if future.code() is not self._grpc.StatusCode.OK:
                finish(future.code().name)
            else:
                right = len(future.result()) == self._sizes[index]
                finish("" if right else "SHORT")

        future.add_done_callback(on_answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What became of the requests of some time at one rate.

    Args:
        offered: Requests a second that were due.
        achieved: Requests a second that were answered well, before the time
            was over.
        num_requests: How many were sent.
        errors: How many failed, by status.
        p50: Milliseconds of those answered well, from when they were due;
            `None` if there are none. So are `p90` and `p99`.
        p90: See `p50`.
        p99: See `p50`.
        p99_late: Milliseconds that the sender itself was late.
    """

    offered: float
    achieved: float
    num_requests: int
    errors: dict[str, int]
    p50: float | None
    p90: float | None
    p99: float | None
    p99_late: float

    def is_saturated(self, least_share: float) -> bool:
        """Whether requests failed, or too few were answered in their time.

        Args:
            least_share: Of the offered rate, what has to be achieved.
        """
        return bool(self.errors) or self.achieved < least_share * self.offered


def step_of(rate: float, answered: Sequence[Answered]) -> Step:
    """Returns what became of the requests of one rate.

    Args:
        rate: Requests a second that were due.
        answered: The requests.
    """
    well = [a for a in answered if not a.error]
    window = len(answered) / rate
    times = [(a.done - a.due) * 1e3 for a in well]
    percentiles = {
        f"p{percent}": float(np.percentile(times, percent)) if times else None
        for percent in PERCENTILES
    }
    return Step(
        offered=rate,
        # Not over the time until the last answer: one that is a second late
        # says nothing of the rate.
        achieved=sum(a.done <= window for a in well) / window,
        num_requests=len(answered),
        errors=dict(collections.Counter(a.error for a in answered if a.error)),
        **percentiles,
        p99_late=float(
            np.percentile([(a.sent - a.due) * 1e3 for a in answered], 99)
        ),
    )
