"""Scores of requests in raw values, whatever computes them.

Legend: B requests, L history length, C candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.padding import (
    by_shape,
    keep_newest,
    num_candidates,
    pad,
)
from data_pipelines.requests.tensor_type import Array, TensorType

_MOST_CANDIDATES = 1 << 15
"""Of a batch, after padding: requests of many make smaller batches."""


class Scorer(Protocol):
    """A model that reads raw values.

    Attributes:
        inputs: The inputs of a request.
        buckets: The shapes to pad to. Of a history the model reads as many
            behaviors as the longest holds.
    """

    inputs: dict[str, TensorType]
    buckets: Buckets

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Returns the probabilities of a padded batch, float32 `[B, C]`."""


def score_requests(
    scorer: Scorer, requests: Sequence[Mapping[str, Array]], batch_size: int
) -> list[Array]:
    """Returns the probabilities of each request's candidates.

    Args:
        scorer: What computes them.
        requests: What `check_request` returned.
        batch_size: Requests that are computed together, at most.

    Returns:
        One float32 array a request, in order.
    """
    buckets = scorer.buckets
    longest = buckets.history_lengths[-1]
    newest = [keep_newest(request, longest) for request in requests]
    scores: list[Array] = [np.zeros(0, np.float32)] * len(newest)

    def most(candidates: int) -> int:
        return max(1, min(batch_size, _MOST_CANDIDATES // candidates))

    for (length, candidates), members in by_shape(newest, buckets, most):
        batch = pad([newest[index] for index in members], length, candidates)
        for index, row in zip(members, scorer(batch), strict=True):
            scores[index] = row[: num_candidates(newest[index])]
    return scores
