"""A loaded SavedModel against the answers of the Keras model."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.requests.raw_tensors import PROBABILITY
from export.checks.c_api import SavedModelSession
from export.checks.keras_answers import ANSWERS, REQUESTS
from export.checks.lint_graph import XLA_PREFIX, xla_bucket
from export.checks.variations import VARIATIONS, Batch, of_shape
from export.graph.signature import (
    ENCODE_USER,
    EXAMPLES,
    FINGERPRINT,
    SCORE,
    WHOLE_PASS,
)
from export.requests.warm_up import examples_of, padded, read_warm_up
from sparsectr.errors import InputError
from sparsectr.metrics import auc

Array = npt.NDArray[Any]
Requests = Mapping[str, Array]

LIMIT = 1e-6
"""Largest difference in probability that rounding explains in float32."""

MIXED_LIMIT = 0.02
"""The same in bfloat16, which has 8 bits, and sums in another order."""

AUC_LIMIT = 1e-6
"""Largest difference in AUC, beside what pairs within the limit can make."""


class Answers(NamedTuple):
    """What `export.checks.keras_answers` wrote.

    Attributes:
        batches: Real requests.
        drawn: The like with ids drawn from the whole of every table.
        weight_bytes: Size of all weights.
        weights: Their digests.
        vocabularies: Those of the run's vocabularies, by table.
        limit: Largest difference in probability that is allowed.
    """

    batches: list[Batch]
    drawn: list[Batch]
    weight_bytes: int
    weights: frozenset[str]
    vocabularies: Mapping[str, str]
    limit: float = LIMIT


class Case(NamedTuple):
    """What one way to ask has given.

    Attributes:
        name: The way.
        num_requests: How many requests were asked.
        num_candidates: How many real candidates they had.
        difference: Largest difference to Keras in probability.
        auc: AUC of the SavedModel's answers; NaN where all labels are equal.
        keras_auc: AUC of Keras' answers to the same requests.
        undecided: Share of pairs whose order the allowed difference leaves
            open: by so much AUC can differ.
    """

    name: str
    num_requests: int
    num_candidates: int
    difference: float
    auc: float
    keras_auc: float
    undecided: float


def read_answers(folder: Path) -> Answers:
    """Reads what `export.checks.keras_answers` wrote.

    Raises:
        InputError: If it is damaged.
    """
    records = read_warm_up(folder / REQUESTS)
    try:
        with np.load(folder / ANSWERS, allow_pickle=False) as arrays:
            batches: dict[bool, list[Batch]] = {False: [], True: []}
            for number, (_, requests) in enumerate(records):
                batch = Batch(
                    requests,
                    *(
                        arrays[f"{number}/{name}"]
                        for name in (PROBABILITY, "mask", "label")
                    ),
                )
                batches[bool(arrays[f"{number}/is_drawn"])].append(batch)
            return Answers(
                batches[False],
                batches[True],
                int(arrays["weight_bytes"]),
                frozenset(arrays["weights"].tolist()),
                json.loads(str(arrays["vocabularies"])),
                MIXED_LIMIT if arrays["is_mixed"] else LIMIT,
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / ANSWERS} is damaged: {error}") from error


def compare(session: SavedModelSession, answers: Answers) -> list[Case]:
    """Asks in every way.

    Raises:
        InputError: If the SavedModel does not take a request, or answers
            with another shape.
    """

    def whole(requests: Requests) -> Array:
        return session.run(WHOLE_PASS, requests)[PROBABILITY]

    def cached(requests: Requests) -> Array:
        users = _inputs_of(session, ENCODE_USER, requests)
        state = session.run(ENCODE_USER, users)
        candidates = _inputs_of(session, SCORE, {**requests, **state})
        return session.run(SCORE, candidates)[PROBABILITY]

    ways = [("whole pass", whole), ("encode, then score", cached)]
    asked = []
    for way, ask in ways:
        for name, changed in VARIATIONS.items():
            batches = [b for batch in answers.batches for b in changed(batch)]
            found = [ask(batch.requests) for batch in batches]
            asked.append((f"{way}, {name}", batches, found))
        found = [ask(batch.requests) for batch in answers.drawn]
        asked.append((f"{way}, ids of whole tables", answers.drawn, found))
    compiled = (n for n in session.signatures if n.startswith(XLA_PREFIX))
    for name in compiled:
        shape = xla_bucket(name)
        batches = [
            of_shape(batch, *shape)
            for batch in answers.batches
            # A history that is cut would be another.
            if batch.requests["behavior_time"].shape[1] <= shape[1]
        ]
        if batches:
            found = [
                session.run(name, b.requests)[PROBABILITY] for b in batches
            ]
            asked.append((name, batches, found))
    found = [_of_examples(session, batch) for batch in answers.batches]
    asked.append(("serialized tf.Examples", answers.batches, found))
    return [_measure(*way, answers.limit) for way in asked]


def check_cases(path: str, cases: list[Case], limit: float = LIMIT) -> None:
    """Raises if the SavedModel does not give Keras' answers.

    Args:
        path: What to call it.
        cases: What it gave.
        limit: Largest difference in probability that is allowed.

    Raises:
        InputError: If an answer or an AUC differs too much.
    """
    for case in cases:
        # A NaN is not within the limit either.
        if not case.difference <= limit:
            raise InputError(
                f"{path} differs from the Keras model by {case.difference:.2g} "
                f"in probability ({case.name}); at most {limit:.2g} is allowed."
            )
        # Both are NaN where all labels are equal.
        if abs(case.auc - case.keras_auc) > case.undecided + AUC_LIMIT:
            raise InputError(
                f"{path} has an AUC of {case.auc:.6f} ({case.name}), the Keras "
                f"model one of {case.keras_auc:.6f}."
            )


def check_states(session: SavedModelSession, requests: Requests) -> str | None:
    """Returns what is wrong with how states of other models are refused.

    Raises:
        InputError: If the SavedModel does not take the requests.
    """
    users = _inputs_of(session, ENCODE_USER, requests)
    state = session.run(ENCODE_USER, users)
    # The last request comes with a state of another model.
    state[FINGERPRINT] = state[FINGERPRINT].copy()
    state[FINGERPRINT][-1] += 1
    inputs = _inputs_of(session, SCORE, {**requests, **state})
    answer = session.run(SCORE, inputs)[PROBABILITY]
    if not np.isnan(answer[-1]).all():
        return "a state of another model is not refused"
    if not np.isfinite(answer[:-1]).all():
        return "a state of another model spoils other requests"
    return None


def _inputs_of(
    session: SavedModelSession, signature: str, values: Requests
) -> Requests:
    names = session.signatures[signature].inputs
    return {name: values[name] for name in names if name in values}


def _of_examples(session: SavedModelSession, batch: Batch) -> Array:
    """Asks with tf.Examples, which have neither padding nor a batch axis."""
    counts = batch.mask.sum(axis=1)
    examples = examples_of(batch.requests, counts.tolist())
    answer = session.run(EXAMPLES, {"examples": examples})[PROBABILITY]
    missing = batch.mask.shape[1] - answer.shape[1]
    return padded(answer, max(missing, 0), on_left=False)


def _measure(
    name: str, batches: list[Batch], found: list[Array], limit: float
) -> Case:
    for batch, answer in zip(batches, found, strict=True):
        if answer.shape != batch.probability.shape:
            raise InputError(
                f"The SavedModel answers with shape {answer.shape}, not "
                f"{batch.probability.shape} ({name})."
            )
    masks = [batch.mask for batch in batches]
    served = _real(found, masks)
    expected = _real([batch.probability for batch in batches], masks)
    label = _real([batch.label for batch in batches], masks)
    # np.max lets a NaN through, and a NaN is not within any limit.
    difference = float(np.max(np.abs(served - expected), initial=0.0))
    served_auc = auc(label, served) if np.isfinite(served).all() else np.nan
    return Case(
        name=name,
        num_requests=sum(len(mask) for mask in masks),
        num_candidates=len(served),
        difference=difference,
        auc=served_auc,
        keras_auc=auc(label, expected),
        undecided=_undecided(label, expected, limit),
    )


def _real(arrays: list[Array], masks: list[Array]) -> Array:
    return np.concatenate([a[m] for a, m in zip(arrays, masks, strict=True)])


def _undecided(label: Array, probability: Array, limit: float) -> float:
    """Returns the share of pairs that are closer than twice the limit."""
    positive = np.sort(probability[label > 0]).astype(np.float64)
    negative = probability[label == 0].astype(np.float64)
    above = np.searchsorted(positive, negative + 2 * limit, "right")
    below = np.searchsorted(positive, negative - 2 * limit, "left")
    return float((above - below).sum() / max(positive.size * negative.size, 1))
