"""Scores of whole splits."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.reading.batches import Batches
from sparsectr.errors import InputError
from sparsectr.metrics import Metrics, compute_metrics
from sparsectr.process.progress import Progress

Array = npt.NDArray[Any]


class Scores(NamedTuple):
    """One entry for each real candidate.

    Attributes:
        labels: uint8.
        logits: float32.
        users: int64, rows of the users in the store.
        requests: int64, numbers of the requests.
        weights: float32, where the data have weights.
    """

    labels: Array
    logits: Array
    users: Array
    requests: Array
    weights: Array | None = None

    def metrics(self) -> Metrics:
        """Returns the exact metrics."""
        return compute_metrics(
            self.labels,
            self.logits,
            self.users,
            self.requests,
            self.weights,
        )


def score_requests(predict: Any, batches: Batches, dataset: Any) -> Scores:
    """Scores every candidate of a split once.

    Args:
        predict: Maps a batch to logits `[B, C]`.
        batches: Where the batches of `dataset` come from.
        dataset: One epoch of them.

    Raises:
        InputError: If there are no requests.
    """
    if batches.num_requests == 0:
        raise InputError("There are no requests to score.")
    parts = []
    with Progress("score", batches.num_batches, "batch", delay=0) as bar:
        for step, batch in enumerate(dataset):
            logits = np.asarray(predict(batch))
            known = batches.labels(step, logits.shape[1])
            # Rows that only fill up the last batch of a bucket are cut off.
            logits = logits[: len(known.mask)][known.mask]
            part = [known.label, logits, known.user, known.request]
            if known.weight is not None:
                part.append(known.weight)
            parts.append(part)
            bar.advance(1)
    return Scores(
        *(np.concatenate(column) for column in zip(*parts, strict=True))
    )
