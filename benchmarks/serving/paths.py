"""The ways to a score that `benchmarks.serving_latency` times.

Axes: B rows of a call, C candidates of a request.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import psutil

from benchmarks.serving.model import Array, Inputs, split_inputs
from data_pipelines.requests.raw_tensors import PROBABILITY
from export.checks.c_api import SavedModelSession
from export.client_parts.grpc_transport import GrpcTransport
from export.graph.signature import ENCODE_USER, SCORE, WHOLE_PASS, xla_name

WHOLE, COMPILED, ENCODE = "whole", "compiled", "encode"
FROM_STATE, POINTWISE = "score", "pointwise"
PROCESS, GRPC = "process", "grpc"

# The server, in a process of its own, gives this up long before.
_TIMEOUT_SECONDS = 600.0

# Pointwise calls of a request whose answers are compared.
_CHECKED_CALLS = 2


class Case(NamedTuple):
    """One thing that is timed.

    Attributes:
        path: One of the five ways.
        transport: "process" or "grpc".
        attention: "evo" or "full".
        num_behaviors: L.
        num_candidates: C; 0 for encoding.
    """

    path: str
    transport: str
    attention: str
    num_behaviors: int
    num_candidates: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Model(Protocol):
    """A SavedModel, wherever it is."""

    def __call__(self, signature_name: str, inputs: Inputs) -> Inputs:
        """Runs a signature."""


@contextlib.contextmanager
def in_process(path: Path) -> Iterator[Model]:
    """Loads a version into this process, as the server does."""
    with SavedModelSession(path) as session:
        yield session.run


@contextlib.contextmanager
def by_grpc(address: str, model_name: str) -> Iterator[Model]:
    """Connects to a server."""
    transport = GrpcTransport(address, model_name, version=None)
    signatures = transport.signatures(_TIMEOUT_SECONDS)

    def run(signature_name: str, inputs: Inputs) -> Inputs:
        outputs = signatures[signature_name].outputs
        return transport.predict(
            signature_name, inputs, outputs, _TIMEOUT_SECONDS
        )

    try:
        yield run
    finally:
        transport.close()


def make_call(
    model: Model, case: Case, requests: list[Inputs], pointwise_rows: int
) -> Callable[[int], object]:
    """Returns what serves the n-th request of a case.

    Args:
        model: Who answers.
        case: What is asked.
        requests: Inputs of `serving_default`, one request each.
        pointwise_rows: B of a call of the pointwise path.
    """
    if case.path == POINTWISE:
        # One request alone: a history for each candidate takes much memory.
        calls = list(_pointwise(requests[0], pointwise_rows))
        return lambda number: [model(WHOLE_PASS, rows) for rows in calls]
    signature, given = inputs_of(case.path, model, requests)
    if case.path == COMPILED:
        signature = xla_name(bucket_of(case))
    return lambda number: model(signature, given[number % len(given)])


def bucket_of(case: Case) -> tuple[int, int, int]:
    """Returns B, L and C of the signature that is compiled for a case."""
    return 1, case.num_behaviors, case.num_candidates


def inputs_of(
    path: str, model: Model, requests: list[Inputs]
) -> tuple[str, list[Inputs]]:
    """Returns the signature of a path of one call, and its inputs.

    Args:
        path: "whole", "encode" or "score"; "compiled" is as "whole".
        model: Who encodes the users.
        requests: Inputs of `serving_default`, one request each.
    """
    if path == ENCODE:
        return ENCODE_USER, [split_inputs(request)[0] for request in requests]
    if path == FROM_STATE:
        return SCORE, [_from_state(model, request) for request in requests]
    return WHOLE_PASS, requests


def scores_of(
    model: Model, request: Inputs, pointwise_rows: int
) -> dict[str, Array]:
    """Returns the probabilities of a request on every path, `[C]` each.

    Args:
        model: Who answers.
        request: Inputs of `serving_default`, one request.
        pointwise_rows: B of a call of the pointwise path. Candidates behind
            the first calls have the probability of the whole pass: a history
            for each of a thousand candidates would take minutes.
    """
    whole = model(WHOLE_PASS, request)[PROBABILITY][0]
    calls = itertools.islice(
        _pointwise(request, pointwise_rows), _CHECKED_CALLS
    )
    pointwise = np.concatenate(
        [model(WHOLE_PASS, rows)[PROBABILITY][:, 0] for rows in calls]
    )
    return {
        WHOLE: whole,
        FROM_STATE: model(SCORE, _from_state(model, request))[PROBABILITY][0],
        POINTWISE: np.concatenate([pointwise, whole[len(pointwise) :]]),
    }


def state_bytes(model: Model, request: Inputs) -> int:
    """Returns the size of a user's state."""
    state = model(ENCODE_USER, split_inputs(request)[0])
    return sum(value.nbytes for value in state.values())


def memory_of_versions(path: Path, request: Inputs) -> dict[str, int]:
    """Returns the memory of this process with one version and with two.

    Args:
        path: Folder of the version, which is loaded twice.
        request: Inputs of `serving_default`, served by each.

    Returns:
        `weight_bytes`, on disk, and the resident `one_version_bytes` and
        `two_versions_bytes`.
    """
    with in_process(path) as first:
        first(WHOLE_PASS, request)
        one = psutil.Process().memory_info().rss
        with in_process(path) as second:
            second(WHOLE_PASS, request)
            two = psutil.Process().memory_info().rss
    weights = (path / "variables").iterdir()
    return {
        "weight_bytes": sum(file.stat().st_size for file in weights),
        "one_version_bytes": one,
        "two_versions_bytes": two,
    }


def _from_state(model: Model, request: Inputs) -> Inputs:
    user, candidates = split_inputs(request)
    return {**model(ENCODE_USER, user), **candidates}


def _pointwise(request: Mapping[str, Any], rows: int) -> Iterator[Inputs]:
    """Yields the calls that score each candidate as a request of its own."""
    num_candidates = next(
        value.shape[1]
        for name, value in request.items()
        if name.startswith("candidate_")
    )
    for start in range(0, num_candidates, rows):
        chosen = slice(start, min(start + rows, num_candidates))
        count = chosen.stop - chosen.start
        yield {
            name: value[:, chosen].T  # [B, 1]
            if name.startswith("candidate_")
            else np.repeat(value, count, axis=0)  # [B, ...]
            for name, value in request.items()
        }
