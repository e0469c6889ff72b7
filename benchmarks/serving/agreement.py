"""Whether all ways to a score agree, from the Keras model to the wire."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.model import (
    NUM_ANSWERED,
    Array,
    Shape,
    keras_answers,
    raw_inputs,
)
from benchmarks.serving.paths import POINTWISE, Model, scores_of
from sparsectr.metrics import auc

KERAS = "keras"


def agreement(
    models: Mapping[str, Model],
    folder: Path,
    shapes: Sequence[Shape],
    num_rows: int,
    pointwise_rows: int,
) -> dict[str, Any]:
    """Sends the requests that Keras has answered on every path.

    Args:
        models: Who answers, by transport.
        folder: That of `write_models`.
        shapes: L and C of the requests.
        num_rows: Rows of every table.
        pointwise_rows: B of a call of the pointwise path.

    Returns:
        See `differences`, and `num_requests`.
    """
    answers: dict[str, list[Array]] = {KERAS: []}
    for shape in shapes:
        answers[KERAS].append(keras_answers(folder, shape).ravel())
        for request in raw_inputs(num_rows, *shape, NUM_ANSWERED):
            for transport, model in models.items():
                found = scores_of(model, request, pointwise_rows)
                for path, scores in found.items():
                    name = f"{transport} {path}"
                    answers.setdefault(name, []).append(scores)
    joined = {name: np.concatenate(parts) for name, parts in answers.items()}
    labels = np.random.default_rng(0).integers(2, size=len(joined[KERAS]))
    return {
        "num_requests": len(shapes) * NUM_ANSWERED,
        **differences(joined, labels),
    }


def differences(answers: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Compares the probabilities of the same candidates.

    Args:
        answers: By way, `keras` among them, `[n]` each.
        labels: 0 or 1, at random, `[n]`.

    Returns:
        `to_keras`, the largest difference of each way; `largest`, that
        between any two ways; `auc` of each way (not of the pointwise one,
        which answers some of the candidates alone); `num_candidates`, and
        the `lowest` and the `highest` of Keras' probabilities.
    """
    keras = answers[KERAS]
    every = np.stack(list(answers.values()))  # [ways, n]
    return {
        "num_candidates": len(keras),
        "lowest": float(keras.min()),
        "highest": float(keras.max()),
        "to_keras": {
            name: float(np.abs(found - keras).max())
            for name, found in answers.items()
            if name != KERAS
        },
        "largest": float((every.max(axis=0) - every.min(axis=0)).max()),
        "auc": {
            name: auc(labels, found)
            for name, found in answers.items()
            if POINTWISE not in name
        },
    }
