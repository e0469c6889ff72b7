"""Requests of any length, checked and padded to one shape.

A server computes requests of one shape together, and an operation that fails
for one of them fails for all. So a request is checked before it is sent.

Legend: B requests, L history length, C candidates.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
)
from data_pipelines.requests.tensor_type import Array, TensorType
from sparsectr.errors import InputError
from sparsectr.process.utf8 import to_utf8
from sparsectr.schema import LATEST_TIME

Request = Mapping[str, Any]
"""One request: the inputs of a signature without their batch axis.

`user_<field>` and `request_time` are scalars, `behavior_<field>` and
`behavior_time` have one entry a behavior, oldest first, and
`candidate_<field>` one a candidate. An entry of a set is a list of values.
Nothing is padded.
"""

BEHAVIOR_TIME = "behavior_time"
REQUEST_TIME = "request_time"

_BEHAVIOR = "behavior_"
_CANDIDATE = "candidate_"


def check_request(
    request: Request, inputs: Mapping[str, TensorType], where: str
) -> dict[str, Array]:
    """Returns the arrays of a request, of the types that are sent.

    Args:
        request: What the caller has: arrays, lists or scalars.
        inputs: The inputs that it must have, and no others.
        where: Which request, for the errors.

    Raises:
        InputError: If an input is missing or unknown, if a value is not of
            its type, or an integer too large for it, if a text cannot be
            sent as UTF-8, if lengths differ, if times are not in order, not
            positive or after 2100, or if a behavior is not before the
            request.
    """
    for name in inputs:
        if name not in request:
            raise InputError(f"{where} has no `{name}`.")
    for name in request:
        if name not in inputs:
            raise InputError(f"{where} has `{name}`, which is no input.")
    arrays = {
        name: _to_array(request[name], type_, f"{where}: `{name}`")
        for name, type_ in inputs.items()
    }
    for prefix in (_BEHAVIOR, _CANDIDATE):
        _check_lengths(arrays, prefix, where)
    _check_times(arrays, where)
    return arrays


def keep_newest(arrays: Mapping[str, Array], length: int) -> dict[str, Array]:
    """Returns a checked request without what is too old to be read.

    Args:
        arrays: What `check_request` returned.
        length: How many behaviors the model reads, at least 1.
    """
    return {
        name: array[-length:] if name.startswith(_BEHAVIOR) else array
        for name, array in arrays.items()
    }


def keep_known(arrays: Mapping[str, Array], delay: int) -> dict[str, Array]:
    """Returns a checked request without what was not known yet.

    Args:
        arrays: What `check_request` returned.
        delay: Seconds that a behavior needs to be known.
    """
    latest = arrays["request_time"] - delay
    known = arrays[BEHAVIOR_TIME] <= latest
    return {
        name: array[known] if name.startswith(_BEHAVIOR) else array
        for name, array in arrays.items()
    }


def num_behaviors(arrays: Mapping[str, Array]) -> int:
    """Returns how many behaviors a checked request has."""
    return _length(arrays, _BEHAVIOR)


def num_candidates(arrays: Mapping[str, Array]) -> int:
    """Returns how many candidates a checked request has."""
    return _length(arrays, _CANDIDATE)


def by_shape(
    requests: Sequence[Mapping[str, Array]],
    buckets: Buckets,
    most: Callable[[int], int],
) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Yields L and C of a batch and the indices of its requests.

    Args:
        requests: What `check_request` returned.
        buckets: The shapes.
        most: Requests of a batch, at most, by its C.
    """
    groups = defaultdict(list)
    for index, arrays in enumerate(requests):
        shape = (
            buckets.length_of(num_behaviors(arrays)),
            buckets.candidates_of(num_candidates(arrays)),
        )
        groups[shape].append(index)
    for shape, members in groups.items():
        size = most(shape[1])
        for start in range(0, len(members), size):
            yield shape, members[start : start + size]


def pad(
    requests: Sequence[Mapping[str, Array]], length: int, candidates: int
) -> dict[str, Array]:
    """Returns the inputs of a batch of checked requests.

    Histories are padded on the left: a time of 0 is what makes an entry
    padding. Candidates are padded at the end.

    Args:
        requests: What `check_request` returned, at least one.
        length: The L of the batch.
        candidates: The C of the batch.
    """
    batch = {}
    for name in requests[0]:
        rows = [arrays[name] for arrays in requests]
        if name.startswith(_BEHAVIOR):
            batch[name] = _pad(rows, length, is_left=True)  # [B, L, ...]
        elif name.startswith(_CANDIDATE):
            batch[name] = _pad(rows, candidates, is_left=False)  # [B, C, ...]
        else:
            batch[name] = np.stack(rows)  # [B, ...]
    return batch


def _pad(rows: list[Array], width: int, *, is_left: bool) -> Array:
    padding = "" if rows[0].dtype == object else 0
    shape = (len(rows), width, *rows[0].shape[1:])
    padded = np.full(shape, padding, rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        start = width - len(row) if is_left else 0
        target[start : start + len(row)] = row
    return padded


def _to_array(value: Any, type_: TensorType, where: str) -> Array:
    if type_.set_size is not None:
        return _to_sets(value, type_, type_.set_size, where)
    is_text = type_.dtype == "string"
    dtype = np.dtype(object if is_text else type_.dtype)
    try:
        # Of a list of texts NumPy makes texts of one width: they lose the
        # zeros at their end, and a number among them becomes a text.
        array = np.asarray(value, dtype if is_text else None)
    except ValueError as error:
        raise InputError(f"{where} has lists of different lengths.") from error
    # The batch axis is not there yet.
    rank = len(type_.shape) - 1
    if array.ndim != rank:
        expected = "one value" if rank == 0 else "a list of values"
        raise InputError(
            f"{where} must be {expected}. Received: shape {array.shape}"
        )
    if array.size == 0:
        # NumPy makes an empty list one of floats.
        return np.zeros(array.shape, dtype)
    if is_text:
        _check_texts(array, where)
        return array
    return _to_numbers(array, dtype, where)


def _to_sets(value: Any, type_: TensorType, size: int, where: str) -> Array:
    """Returns sets of values, each padded or cut to `size`."""
    is_one = len(type_.shape) == 2
    counts: Array
    flat: Any
    if isinstance(value, np.ndarray) and value.ndim == len(type_.shape) - 1:
        # Sets of one size, as tables of requests have them.
        rows = (value[None] if is_one else value)[:, :size]
        counts, flat = np.full(len(rows), rows.shape[1]), rows.ravel()
    else:
        try:
            sets = [list(row) for row in ([value] if is_one else value)]
        except TypeError as error:
            expected = "a list of values" if is_one else "a list of lists"
            raise InputError(f"{where} must be {expected}.") from error
        counts = np.array([min(len(row), size) for row in sets], np.int64)
        flat = [entry for row in sets for entry in row[:size]]
    values = _to_array(flat, TensorType(type_.dtype, (-1, -1)), where)
    missing = MISSING_TEXT if type_.dtype == "string" else MISSING_INTEGER
    padded = np.full((len(counts), size), missing, values.dtype)
    padded[np.arange(size) < counts[:, None]] = values
    return padded[0] if is_one else padded


def _check_texts(array: Array, where: str) -> None:
    for text in array.flat:
        if not isinstance(text, str | bytes):
            raise InputError(f"{where} must be text. Received: {text!r}")
        to_utf8(text, where)


def _to_numbers(array: Array, dtype: "np.dtype[Any]", where: str) -> Array:
    if array.dtype.kind not in ("iu" if dtype.kind == "i" else "fiu"):
        what = "integers" if dtype.kind == "i" else "numbers"
        raise InputError(
            f"{where} must be {what} ({dtype}). Received: {array.dtype}"
        )
    # A number too large for float32 becomes infinite, which the graph takes
    # for a missing one, as it does NaN.
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind == "i" and np.any(converted != array):
        raise InputError(f"{where} has a value that is not {dtype}.")
    return converted


def _check_lengths(
    arrays: Mapping[str, Array], prefix: str, where: str
) -> None:
    lengths = {name: len(array) for name, array in _with_prefix(arrays, prefix)}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(f"{where} has lists of different lengths: {given}")


def _check_times(arrays: Mapping[str, Array], where: str) -> None:
    times = arrays.get(BEHAVIOR_TIME)
    if times is not None and times.size:
        if times.min() <= 0:
            raise InputError(
                f"{where}: `{BEHAVIOR_TIME}` has {times.min()}; times are "
                "Unix seconds, above 0, and histories come without padding."
            )
        _check_is_in_seconds(times.max(), f"{where}: `{BEHAVIOR_TIME}`")
        if np.any(times[1:] < times[:-1]):
            index = int(np.argmax(times[1:] < times[:-1])) + 1
            raise InputError(
                f"{where}: `{BEHAVIOR_TIME}` is not in order, oldest first: "
                f"entry {index} is before entry {index - 1}."
            )
    request_time = arrays.get(REQUEST_TIME)
    if request_time is not None:
        _check_is_in_seconds(request_time, f"{where}: `{REQUEST_TIME}`")
        newest = 0 if times is None or not times.size else int(times[-1])
        check_is_after(request_time, newest, where)


def _check_is_in_seconds(time: Any, where: str) -> None:
    if time >= LATEST_TIME:
        raise InputError(
            f"{where} has {time}, which is after 2100; times are Unix "
            "seconds. Are these milliseconds?"
        )


def check_is_after(request_time: Array, newest: int, where: str) -> None:
    """Checks that a request is later than its history.

    Args:
        request_time: When the request was.
        newest: Time of the newest behavior, 0 if there is none.
        where: Which request, for the error.

    Raises:
        InputError: If it is not.
    """
    if request_time <= newest:
        reason = (
            f"not after the newest behavior, at {newest}"
            if newest
            else "not a time in Unix seconds"
        )
        raise InputError(
            f"{where}: `{REQUEST_TIME}` {request_time} is {reason}."
        )


def _with_prefix(
    arrays: Mapping[str, Array], prefix: str
) -> Iterable[tuple[str, Array]]:
    return (item for item in arrays.items() if item[0].startswith(prefix))


def _length(arrays: Mapping[str, Array], prefix: str) -> int:
    return next((len(a) for _, a in _with_prefix(arrays, prefix)), 0)
