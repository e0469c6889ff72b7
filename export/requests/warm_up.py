"""Warm-up records: the requests that a server runs before it serves.

They make memory and kernels ready, and they are a gate: a version with one
record that fails never becomes available. Nothing here imports TensorFlow.

Axes: B requests, L history length, C candidates.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_pipelines.requests.buckets import Buckets
from export.graph.signature import ENCODE_USER, EXAMPLES, Signature
from export.messages.predict_messages import (
    PredictionLog,
    predict_request,
    to_array,
)
from export.messages.request_example import serialized_example
from export.messages.tf_record import read_records, write_records
from sparsectr.errors import InputError

Array = npt.NDArray[Any]
Requests = Mapping[str, Array]
Record = tuple[str, Requests]
"""Name of a signature, and its inputs."""

MAX_RECORDS = 1000
"""The server refuses a file with more."""

FILE_NAME = "tf_serving_warmup_requests"
"""Name in `assets.extra` that the server looks for."""


def write_warm_up(
    path: Path, requests: Sequence[Record], model_name: str
) -> None:
    """Writes the file that a server replays.

    Args:
        path: The file.
        requests: Signature and inputs of each record.
        model_name: Name under which the model is served.

    Raises:
        ValueError: If there are more than the server reads.
    """
    if len(requests) > MAX_RECORDS:
        raise ValueError(
            f"`requests` must be at most {MAX_RECORDS}. "
            f"Received: {len(requests)}"
        )
    write_records(path, (_log(model_name, *record) for record in requests))


def _log(model_name: str, signature: str, inputs: Requests) -> bytes:
    log = PredictionLog()
    log.predict_log.request.CopyFrom(
        predict_request(model_name, signature, inputs)
    )
    return bytes(log.SerializeToString())


def read_warm_up(path: Path) -> list[Record]:
    """Returns signature and inputs of each record.

    Raises:
        InputError: If the file is damaged, or a record is no request.
        OSError: If it cannot be read.
    """
    return [
        _record(f"{path}, record {number}", content)
        for number, content in enumerate(read_records(path))
    ]


def _record(where: str, content: bytes) -> Record:
    try:
        log = PredictionLog.FromString(content)
        request = log.predict_log.request
        inputs = {name: to_array(t) for name, t in request.inputs.items()}
    except (DecodeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
    if not inputs:
        raise InputError(f"{where}: not a request to predict.")
    return request.model_spec.signature_name, inputs


def warm_up_requests(
    signatures: Mapping[str, Signature],
    requests: Requests,
    buckets: Buckets,
    encode_user: Callable[[Requests], Requests] | None = None,
) -> list[Record]:
    """Returns one record for each signature and shape bucket.

    A tf.Example has lists of any length and so no bucket of lengths: that
    signature has a record for each batch size.

    Args:
        signatures: `export.graph.signature.signatures` of the model.
        requests: Real requests, the inputs of `serving_default`. They are
            repeated to fill a batch; histories are cut or padded, candidates
            repeated.
        buckets: The shapes.
        encode_user: Gives the user state of the inputs of `encode_user`, for
            the signatures that read one.
    """
    states: dict[tuple[int, int], Requests] = {}

    def state(batch_size: int, length: int) -> Requests:
        if encode_user is None:
            raise ValueError("`encode_user` is needed for a user state.")
        if (batch_size, length) not in states:
            shape = (batch_size, length, 1)
            sized = resized(requests, *shape)
            inputs, _ = signatures[ENCODE_USER]
            states[batch_size, length] = encode_user(
                {tensor.name: sized[tensor.name] for tensor in inputs}
            )
        return states[batch_size, length]

    records: list[Record] = []
    for signature, (inputs, _) in signatures.items():
        names = [tensor.name for tensor in inputs]
        for shape in _shapes(signature, inputs, buckets):
            sized = resized(requests, *shape)
            if signature == EXAMPLES:
                sized = {names[0]: examples_of(sized)}
            elif any(name.startswith("state_") for name in names):
                sized = {**sized, **state(*shape[:2])}
            records.append((signature, {name: sized[name] for name in names}))
    return records


def _shapes(
    signature: str, inputs: Sequence[Any], buckets: Buckets
) -> list[tuple[int, int, int]]:
    """Returns B, L and C of the records of a signature."""
    fixed = {tensor.name: tensor.shape for tensor in inputs}
    open_axes = {a for shape in fixed.values() for a in shape}
    longest, most = buckets.history_lengths[-1], buckets.num_candidates[-1]
    batch_sizes: Sequence[int] = buckets.batch_sizes
    lengths: Sequence[int] = (longest,)
    counts: Sequence[int] = (most,)
    if signature == EXAMPLES:
        counts = buckets.num_candidates[:1]
    elif "B" not in open_axes:  # Compiled for one shape.
        (batch_size, length) = fixed["behavior_time"]
        (count,) = {
            shape[1]
            for name, shape in fixed.items()
            if name.startswith("candidate_")
        }
        return [(int(batch_size), int(length), int(count))]
    else:
        # Where every behavior has a key, the state is as long as they are.
        if any("L" in axis for axis in open_axes if isinstance(axis, str)):
            lengths = buckets.history_lengths
        if "C" in open_axes:
            counts = buckets.num_candidates
    return list(itertools.product(batch_sizes, lengths, counts))


def resized(
    requests: Requests, batch_size: int, length: int, num_candidates: int
) -> dict[str, Array]:
    """Returns requests of one shape, made of others.

    Args:
        requests: Inputs of `serving_default`.
        batch_size: B; the requests are repeated.
        length: L; histories lose their oldest or are padded on the left.
        num_candidates: C; the candidates are repeated.
    """
    rows = np.arange(batch_size) % len(requests["request_time"])
    found = {}
    for name, value in requests.items():
        value = value[rows]
        if name.startswith("behavior_"):
            value = value[:, max(value.shape[1] - length, 0) :]
            value = padded(value, length - value.shape[1], on_left=True)
        elif name.startswith("candidate_"):
            value = value[:, np.arange(num_candidates) % value.shape[1]]
        found[name] = value
    return found


def padded(value: Array, columns: int, *, on_left: bool) -> Array:
    """Returns `value` with columns of nothing before or behind it."""
    nothing = "" if value.dtype.kind in "OSU" else 0
    shape = (len(value), columns, *value.shape[2:])
    filling = np.full(shape, nothing, value.dtype)
    parts = [filling, value] if on_left else [value, filling]
    return np.concatenate(parts, axis=1)


def examples_of(
    requests: Requests, num_candidates: Sequence[int] | None = None
) -> Array:
    """Returns requests as serialized tf.Examples, `[B]`.

    Args:
        requests: Inputs of `serving_default`.
        num_candidates: How many of each are real; all, if not given.
    """
    examples = np.empty(len(requests["request_time"]), object)
    for row in range(len(examples)):
        is_real = requests["behavior_time"][row] > 0
        last = None if num_candidates is None else num_candidates[row]
        example = {}
        for name, value in requests.items():
            if name.startswith("behavior_"):
                example[name] = value[row][is_real]
            elif name.startswith("candidate_"):
                example[name] = value[row][:last]
            else:
                example[name] = value[row]
        examples[row] = serialized_example(example)
    return examples
