"""Ways to ask for what Keras has answered once.

None of them may change an answer: another batch, more padding, another order
or number of candidates.

Axes: B requests, L history length, C candidates.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from export.requests.warm_up import padded, resized

Array = npt.NDArray[Any]
Requests = Mapping[str, Array]

_MORE_PADDING = 13
_MANY_CANDIDATES = 1000
_FEW_REQUESTS = 3


class Batch(NamedTuple):
    """Requests and what Keras says to them.

    Attributes:
        requests: The inputs of `serving_default`, raw values.
        probability: float32 `[B, C]`.
        mask: bool `[B, C]`, True for a real candidate.
        label: 0 or 1, `[B, C]`.
    """

    requests: Requests
    probability: Array
    mask: Array
    label: Array


def of_shape(
    batch: Batch, batch_size: int, length: int, num_candidates: int
) -> Batch:
    """Returns a batch of one shape, of the same requests and candidates."""
    rows = np.arange(batch_size) % len(batch.mask)
    columns = np.arange(num_candidates) % batch.mask.shape[1]
    return Batch(
        resized(batch.requests, batch_size, length, num_candidates),
        *(value[rows][:, columns] for value in batch[1:]),
    )


def _as_they_are(batch: Batch) -> list[Batch]:
    return [batch]


def _one_by_one(batch: Batch) -> list[Batch]:
    """A few requests, each without the others."""
    rows = range(min(len(batch.mask), _FEW_REQUESTS))
    return [_rows(batch, slice(row, row + 1)) for row in rows]


def _shuffled(batch: Batch) -> list[Batch]:
    order = np.random.default_rng(7).permutation(batch.mask.shape[1])
    return [_with_candidates(batch, order)]


def _many_candidates(batch: Batch) -> list[Batch]:
    """The same candidates again and again, for a few requests."""
    order = np.arange(_MANY_CANDIDATES) % batch.mask.shape[1]
    return [_with_candidates(_rows(batch, slice(0, _FEW_REQUESTS)), order)]


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(
        {name: value[rows] for name, value in batch.requests.items()},
        *(value[rows] for value in batch[1:]),
    )


def _with_candidates(batch: Batch, order: Array) -> Batch:
    requests = {
        name: value[:, order] if name.startswith("candidate_") else value
        for name, value in batch.requests.items()
    }
    return Batch(requests, *(value[:, order] for value in batch[1:]))


def _left_padded(batch: Batch) -> list[Batch]:
    """More columns before the histories, without time but with real values."""
    requests = dict(batch.requests)
    for name, value in requests.items():
        if name == "behavior_time":
            requests[name] = padded(value, _MORE_PADDING, on_left=True)
        elif name.startswith("behavior_"):
            newest = np.repeat(value[:, -1:], _MORE_PADDING, axis=1)
            requests[name] = np.concatenate([newest, value], axis=1)
    return [batch._replace(requests=requests)]


def _right_padded(batch: Batch) -> list[Batch]:
    """More columns behind the candidates."""
    requests = {
        name: padded(value, _MORE_PADDING, on_left=False)
        if name.startswith("candidate_")
        else value
        for name, value in batch.requests.items()
    }
    rest = (padded(v, _MORE_PADDING, on_left=False) for v in batch[1:])
    return [Batch(requests, *rest)]


VARIATIONS: dict[str, Callable[[Batch], list[Batch]]] = {
    "as they are": _as_they_are,
    "one by one": _one_by_one,
    "candidates shuffled": _shuffled,
    "1000 candidates": _many_candidates,
    "more left padding": _left_padded,
    "more candidate padding": _right_padded,
}
"""Ways to ask again, by name."""
