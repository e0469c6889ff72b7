r"""Scores of a model server, by gRPC or REST, without TensorFlow.

    python -m export.client --server=localhost:8500 \
        --input=requests.parquet --output=scores.parquet

sends the requests of a Parquet file and writes its rows with one more column,
`probability`. A server given as host:port is called by gRPC, one given as
http://host:port by REST. docs/requests.md says what the file holds.
`--signature` names the signature.json of the version: the shapes to pad to,
and how much of a history is read.

In a program:

    client = Client("localhost:8500")
    [probability] = client.score_requests([request])
    state = client.encode_user(user)            # once a history
    probability = client.score(state, request)  # as often as needed

A program needs NumPy and protobuf, urllib3 if it calls by REST, grpcio if by
gRPC, and nothing else: what the command needs is imported where it is used.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.padding import (
    BEHAVIOR_TIME,
    REQUEST_TIME,
    Request,
    by_shape,
    check_is_after,
    check_request,
    keep_newest,
    num_behaviors,
    num_candidates,
    pad,
)
from data_pipelines.requests.raw_tensors import PROBABILITY
from data_pipelines.requests.tensor_type import Array, TensorType
from export.client_parts.grpc_transport import GrpcTransport
from export.client_parts.server_error import ServerError
from export.client_parts.transport import ServedSignature, Transport
from export.client_parts.user_state import StaleStateError, UserState
from export.graph.signature import ENCODE_USER, SCORE, WHOLE_PASS
from sparsectr.errors import InputError
from sparsectr.process.utf8 import to_utf8

_FIRST_PAUSE = 0.02
"""Seconds before the first retry; they double with each."""

_READ_REQUESTS = 256
"""Requests of a file that are read, and sorted by shape, at a time."""

_STATE_MAY_NOT_FIT = ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
"""How a model answers a state that is not of its shape."""

_Answer = TypeVar("_Answer")


class Client:
    """Calls one model of a server.

    Threads may share it. What the signatures take it learns from the server
    at the first call, so it needs no file of the model; a later version with
    other inputs needs a new client. A request is checked before it is sent,
    padded to a bucket and sent with others of its shape; the answer is cut
    to its candidates.

    Args:
        server: `host:port` for gRPC, `http://host:port` for REST.
        model_name: Name under which the server knows the model.
        version: Which version.
        label: Or the label of one. Without both the server takes the newest.
        timeout_seconds: Limit for one call of the server, retries included.
        retries: How often a call is repeated that was answered UNAVAILABLE,
            with growing pauses. No other error is worth a second try.
        buckets: The shapes that the version was warmed up with, see
            `Buckets.read`. Requests are padded to them, and of a history the
            newest behaviors are sent, as many as the longest bucket holds:
            the model reads no more. Without them requests are padded to the
            usual shapes, which may be slow at first, and nothing is cut.

    Raises:
        InputError: If the server is none, if gRPC is not installed, if the
            label is empty, or if a version comes with it, or if one of these
            texts is none.
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        server: str,
        model_name: str = "sparsectr",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = 1.0,
        retries: int = 2,
        buckets: Buckets | None = None,
    ) -> None:
        if timeout_seconds <= 0:
            raise ValueError(
                "`timeout_seconds` must be positive. "
                f"Received: timeout_seconds={timeout_seconds}"
            )
        if retries < 0:
            raise ValueError(
                f"`retries` must not be negative. Received: retries={retries}"
            )
        if label == "" or (version is not None and label is not None):
            raise InputError(
                "`label` must not be empty, and comes without a version. "
                f"Received: label={label!r}, version={version}"
            )
        to_utf8(server, "`server`")
        to_utf8(model_name, "`model_name`")
        to_utf8(label or "", "`label`")
        self.server = server
        self.timeout_seconds = timeout_seconds
        self.retries = retries
        self.buckets = buckets or Buckets()
        self._max_behaviors = buckets.history_lengths[-1] if buckets else None
        make: Callable[..., Transport] = GrpcTransport
        if "://" in server:
            from export.client_parts.rest_transport import RestTransport

            make = RestTransport
        self._transport: Transport = make(server, model_name, version, label)
        self._is_closed = False
        self._signatures: dict[str, ServedSignature] = {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the connections.

        Whatever is called afterwards raises ValueError, if it needs the
        server.
        """
        self._is_closed = True
        self._transport.close()

    def inputs(self, signature_name: str = WHOLE_PASS) -> dict[str, TensorType]:
        """Returns the inputs of a signature, as the server has them.

        Raises:
            ServerError: If the server does not answer, or has no such
                signature.
        """
        return self._signature(signature_name).inputs

    def score_requests(
        self, requests: Sequence[Request], *, first_index: int = 0
    ) -> list[Array]:
        """Returns the probabilities of each request's candidates.

        Args:
            requests: Whole requests, see `Request`. Those of one bucket
                are sent together, as many as a batch of the server holds; a
                smaller batch is filled up to a bucket.
            first_index: What errors call the first of them.

        Returns:
            One float32 array a request, in order.

        Raises:
            InputError: If a request is not one. It names request and input.
            ServerError: If the server does not answer.
        """
        signature = self._signature(WHOLE_PASS)
        checked = [
            self._check(request, signature, f"request {first_index + index}")
            for index, request in enumerate(requests)
        ]
        scores: list[Array] = [np.zeros(0, np.float32)] * len(checked)
        most = self.buckets.batch_sizes[-1]
        for (length, candidates), members in by_shape(
            checked, self.buckets, lambda _: most
        ):
            rows = [checked[index] for index in members]
            size = self.buckets.batch_of(len(rows))
            rows += rows[-1:] * (size - len(rows))
            inputs = pad(rows, length, candidates)
            answer = self._predict(WHOLE_PASS, signature, inputs)
            # Without those that fill the batch.
            scored = answer[PROBABILITY][: len(members)]
            for index, row in zip(members, scored, strict=True):
                scores[index] = row[: num_candidates(checked[index])]
        return scores

    def encode_user(self, user: Request) -> UserState:
        """Returns the state of one user, for any number of `score` calls.

        Args:
            user: The `user_` and `behavior_` inputs of a request, and its
                `request_time` if the model binds its states to one.

        Raises:
            InputError: If the user is not one. It names the input.
            ServerError: If the server does not answer.
        """
        signature = self._signature(ENCODE_USER)
        arrays = self._check(user, signature, "the user")
        inputs = pad([arrays], self.buckets.length_of(num_behaviors(arrays)), 0)
        times = arrays[BEHAVIOR_TIME]
        return UserState(
            tensors=self._predict(ENCODE_USER, signature, inputs),
            newest_time=int(times[-1]) if times.size else 0,
            request_time=(
                int(arrays[REQUEST_TIME]) if REQUEST_TIME in arrays else None
            ),
        )

    def score(self, state: UserState, request: Request) -> Array:
        """Returns the probabilities of a request's candidates.

        Args:
            state: What `encode_user` returned.
            request: `request_time` and the `candidate_` inputs.

        Returns:
            A float32 array.

        Raises:
            InputError: If the request is not one. It names the input.
            StaleStateError: If the server has another model by now: encode
                the user again.
            ServerError: If the server does not answer.
        """
        signature = self._signature(SCORE)
        if not _fits(state, signature):
            # The server may have moved on since its signatures were read.
            signature = self._signature(SCORE, read_again=True)
            if not _fits(state, signature):
                raise StaleStateError(_STALE)
        inputs = {
            name: type_
            for name, type_ in signature.inputs.items()
            if name not in state.tensors
        }
        arrays = check_request(request, inputs, "the request")
        check_is_after(arrays[REQUEST_TIME], state.newest_time, "the request")
        if state.request_time not in (None, int(arrays[REQUEST_TIME])):
            raise InputError(
                f"`{REQUEST_TIME}` of the request is {arrays[REQUEST_TIME]}, "
                f"but the state was made for {state.request_time} and the "
                "model binds it to that: encode the user again"
            )
        count = num_candidates(arrays)
        padded = pad([arrays], 0, self.buckets.candidates_of(count))
        try:
            answer = self._predict(
                SCORE, signature, {**state.tensors, **padded}
            )
        except ServerError as error:
            if error.code in _STATE_MAY_NOT_FIT and not _fits(
                state, self._signature(SCORE, read_again=True)
            ):
                raise StaleStateError(_STALE) from error
            raise
        probability = answer[PROBABILITY][0]
        if np.isnan(probability).any():
            # The graph's answer to a fingerprint that is not its own: an
            # error would fail all requests that the server batched together.
            raise StaleStateError(_STALE)
        return probability[:count]

    def _check(
        self, request: Request, signature: ServedSignature, where: str
    ) -> dict[str, Array]:
        """Returns the arrays of a request, as much as the model reads."""
        arrays = check_request(request, signature.inputs, where)
        if self._max_behaviors is None:
            return arrays
        return keep_newest(arrays, self._max_behaviors)

    def _signature(
        self, name: str, *, read_again: bool = False
    ) -> ServedSignature:
        signatures = self._signatures
        if read_again or not signatures:
            # Threads that come here together all ask, and get the same.
            signatures = self._call(self._transport.signatures)
            self._signatures = signatures
        if name not in signatures:
            raise ServerError(
                "FAILED_PRECONDITION",
                f"the model has no signature {name!r}. It has: "
                f"{', '.join(sorted(signatures))}",
            )
        return signatures[name]

    def _predict(
        self, name: str, signature: ServedSignature, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        return self._call(
            lambda timeout: self._transport.predict(
                name, inputs, signature.outputs, timeout
            )
        )

    def _call(self, function: Callable[[float], _Answer]) -> _Answer:
        """Calls the server, again where it was UNAVAILABLE."""
        if self._is_closed:
            raise ValueError(f"The client of {self.server} is closed.")
        deadline = time.monotonic() + self.timeout_seconds
        remaining = self.timeout_seconds
        for attempt in range(self.retries):
            try:
                return function(remaining)
            except ServerError as error:
                # Clients that failed together should not return together.
                pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5)
                remaining = deadline - time.monotonic() - pause
                if error.code != "UNAVAILABLE" or remaining <= 0:
                    raise
                time.sleep(pause)
        return function(remaining)


_STALE = (
    "The state is not of the model that the server has now. Encode the user "
    "again."
)


def _fits(state: UserState, signature: ServedSignature) -> bool:
    names = {name for name in signature.inputs if name.startswith("state_")}
    return names == state.tensors.keys() and all(
        signature.inputs[name].holds(array)
        for name, array in state.tensors.items()
    )


def define_flags() -> None:
    """Defines the flags of this command."""
    from absl import flags

    flags.DEFINE_string(
        "server",
        None,
        "host:8500 for gRPC, http://host:8501 for REST.",
        required=True,
    )
    flags.DEFINE_string(
        "input", None, "Parquet file of requests.", required=True
    )
    flags.DEFINE_string("output", None, "Parquet file to write.", required=True)
    flags.DEFINE_string(
        "model", "sparsectr", "Name under which the server knows the model."
    )
    flags.DEFINE_integer(
        "model_version",
        None,
        "Version of the model (default: the newest).",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "model_label", None, "Label of a version, instead of --model_version."
    )
    flags.DEFINE_string(
        "signature",
        None,
        "signature.json of the version. Without it whole histories are sent, "
        "padded to the usual shapes.",
    )
    flags.DEFINE_float(
        "timeout_seconds", 10.0, "Limit for one batch.", lower_bound=0.001
    )
    flags.DEFINE_integer(
        "retries", 5, "Repetitions after UNAVAILABLE.", lower_bound=0
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    from absl import flags

    from sparsectr.file_systems.local_copy import local_copy

    del argv  # Every option is a flag.
    values = flags.FLAGS
    path = local_copy(values.input)
    buckets = None
    if values.signature is not None:
        buckets = Buckets.read(local_copy(values.signature))
    with Client(
        values.server,
        values.model,
        version=values.model_version,
        label=values.model_label,
        timeout_seconds=values.timeout_seconds,
        retries=values.retries,
        buckets=buckets,
    ) as client:
        try:
            count = _score_file(client, path, Path(values.output))
        except ServerError as error:
            raise InputError(f"{values.server}: {error}") from error
    print(f"{values.output}: scores of {count} requests")


def _score_file(client: Client, path: Path, output: Path) -> int:
    from data_pipelines.requests.request_table import RequestTable
    from data_pipelines.requests.score_writer import score_writer
    from sparsectr.process.progress import Progress

    table = RequestTable(path, client.inputs())
    count = 0
    with (
        score_writer(output, table.schema) as write,
        Progress("scoring", table.num_requests, "request") as progress,
    ):
        for rows, requests in table.batches(_READ_REQUESTS):
            try:
                scores = client.score_requests(requests, first_index=count)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            write(rows, scores)
            count += len(requests)
            progress.advance(len(requests))
    return count


if __name__ == "__main__":
    from sparsectr.process import command

    define_flags()
    command.run(main)
