"""Serialized tf.Example to the tensors of the other signatures.

Axes: B requests, L history length, C candidates.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from export.signature import (
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
    """

    inputs: dict[str, Any]
    candidate_mask: Any


def parse_examples(schema: DatasetSchema, examples: Any) -> ParsedExamples:
    """Reads one request from each example.

    A feature of the profile may be absent, and is missing then. The lists of
    a history have one length, and so have those of the candidates; where one
    of them is absent and others are not, the call fails and names it.

    Args:
        schema: The fields of the model.
        examples: string `[B]`.
    """
    users = user_inputs(schema)
    behaviors = behavior_inputs(schema)
    time, *candidates = candidate_inputs(schema)
    features = {
        time.name: tf.io.FixedLenFeature([], tf.int64),
        **{t.name: _profile_feature(t) for t in users},
        **{t.name: tf.io.RaggedFeature(t.dtype) for t in behaviors},
        **{t.name: tf.io.RaggedFeature(t.dtype) for t in candidates},
    }
    parsed = tf.io.parse_example(examples, features)
    inputs = {t.name: parsed[t.name] for t in (time, *users)}
    checks = [
        *_length_checks(parsed, [tensor.name for tensor in behaviors]),
        *_length_checks(parsed, [tensor.name for tensor in candidates]),
    ]
    # Before an operation fails that would say less.
    with tf.control_dependencies(checks):
        for tensor in behaviors:
            # Padding comes behind a row, so each row is turned round before.
            newest_first = parsed[tensor.name][:, ::-1].to_tensor()
            inputs[tensor.name] = newest_first[:, ::-1]
        for tensor in candidates:
            inputs[tensor.name] = parsed[tensor.name].to_tensor()
    counts = parsed[candidates[0].name].row_lengths()
    return ParsedExamples(inputs, tf.sequence_mask(counts))


def _profile_feature(tensor: Tensor) -> Any:
    missing = MISSING_INTEGER if tensor.dtype == "int64" else MISSING_TEXT
    return tf.io.FixedLenFeature([], tensor.dtype, missing)


def _length_checks(parsed: dict[str, Any], names: list[str]) -> list[Any]:
    # Against the longest of them, so that the absent list is the one that is
    # named, whichever it is.
    lengths = {name: parsed[name].row_lengths() for name in names}
    longest = tf.reduce_max(tf.stack(list(lengths.values())), axis=0)
    return [
        tf.debugging.assert_equal(
            length,
            longest,
            f"{name} is absent or shorter than {', '.join(names)}",
        )
        for name, length in lengths.items()
    ]
