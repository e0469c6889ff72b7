"""Serialized tf.Example to the tensors of the other signatures.

Axes: B requests, L history length, C candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
    Tensor,
    behavior_inputs,
    candidate_inputs,
    user_inputs,
)
from sparsectr.schema import DatasetSchema


class ParsedExamples(NamedTuple):
    """Requests that were sent as tf.Example.

    Attributes:
        inputs: The tensors of `serving_default`.
        candidate_mask: bool `[B, C]`, True for a candidate.
        is_request: bool `[B]`, False for an example that is malformed; what
            the others hold for it means nothing.
    """

    inputs: dict[str, Any]
    candidate_mask: Any
    is_request: Any


_MISSING: Mapping[str, int | str | float] = {
    "int64": MISSING_INTEGER,
    "string": MISSING_TEXT,
    "float32": float("nan"),
}


def parse_examples(schema: DatasetSchema, examples: Any) -> ParsedExamples:
    """Reads one request from each example.

    A feature of the profile may be absent, and is missing then. The lists of
    a history have one length, and so have those of the candidates; an absent
    list is an empty one. A set stands in its list as all the values that it is
    padded to. There is one `request_time`. An example that is
    otherwise is malformed: the call does not fail, since others sent the
    examples beside it.

    Args:
        schema: The fields of the model.
        examples: string `[B]`.
    """
    users = user_inputs(schema)
    behaviors = behavior_inputs(schema)
    time, *candidates = candidate_inputs(schema)
    # Lists all of them: a feature of a fixed size fails the call.
    features = {
        tensor.name: tf.io.RaggedFeature(tensor.dtype)
        for tensor in (time, *users, *behaviors, *candidates)
    }
    parsed = tf.io.parse_example(examples, features)
    history = _lengths(parsed, behaviors)
    counts = _lengths(parsed, candidates)
    is_request = (
        (parsed[time.name].row_lengths() == 1)
        & tf.reduce_all(history == history[0], axis=0)
        & tf.reduce_all(counts == counts[0], axis=0)
    )
    if users:
        profile = _lengths(parsed, users)
        is_request &= tf.reduce_all(profile <= 1, axis=0)
    for tensor in (*users, *behaviors, *candidates):
        # Whole sets alone.
        rest = parsed[tensor.name].row_lengths() % _set_size(tensor)
        is_request &= rest == 0
    # A malformed one does not lengthen the histories of others, but keeps as
    # many columns as it may have candidates, to be told.
    length = _largest(tf.where(is_request, history[0], 0))
    count = _largest(counts)
    inputs = {time.name: _dense(parsed[time.name], 1)[:, 0]}
    for tensor in users:
        missing = _MISSING[tensor.dtype]
        size = _set_size(tensor)
        found = _dense(parsed[tensor.name], size, missing)
        inputs[tensor.name] = found if len(tensor.shape) > 1 else found[:, 0]
    for tensor in behaviors:
        # Padding comes behind a row, so each row is turned round before.
        size = _set_size(tensor)
        newest_first = _dense(parsed[tensor.name][:, ::-1], length * size)
        inputs[tensor.name] = _as_sets(newest_first[:, ::-1], tensor)
    for tensor in candidates:
        found = _dense(parsed[tensor.name], count * _set_size(tensor))
        inputs[tensor.name] = _as_sets(found, tensor)
    mask = tf.sequence_mask(counts[0], count)
    return ParsedExamples(inputs, mask, is_request)


def _lengths(parsed: Mapping[str, Any], tensors: Sequence[Tensor]) -> Any:
    """Returns how long each list of each example is, `[lists, B]`.

    A set counts once.
    """
    return tf.stack(
        [parsed[t.name].row_lengths() // _set_size(t) for t in tensors]
    )


def _set_size(tensor: Tensor) -> int:
    """Returns how many values stand for an entry: 1 but for sets."""
    size = tensor.shape[-1]
    return size if isinstance(size, int) else 1


def _as_sets(values: Any, tensor: Tensor) -> Any:
    """Returns `[B, n]` as it is, or `[B, n, K]` of a set."""
    if len(tensor.shape) == 2:
        return values
    size = _set_size(tensor)
    shape = tf.stack([tf.shape(values)[0], tf.shape(values)[1] // size, size])
    return tf.reshape(values, shape)


def _largest(lengths: Any) -> Any:
    # The largest of none is negative.
    return tf.maximum(tf.reduce_max(lengths), 0)


def _dense(
    ragged: Any, columns: Any, padding: int | str | float | None = None
) -> Any:
    """Returns so many columns of lists, cut or padded behind."""
    shape = tf.stack([-1, columns])
    return tf.ensure_shape(ragged.to_tensor(padding, shape=shape), [None, None])
