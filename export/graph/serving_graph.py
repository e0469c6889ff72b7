"""The served graph: raw values in, probabilities out.

Every signature is made of the same three functions of the model: raw values
to ids, `encode_user`, `score`. `export.graph.signature` lists inputs and
outputs, and the answer to bad input.

Axes: B requests, L history length, C candidates.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.requests.raw_tensors import PROBABILITY, Tensor
from export.graph.example_features import parse_examples
from export.graph.signature import (
    ENCODE_USER,
    EXAMPLES,
    FINGERPRINT,
    SCORE,
    STATE_PREFIX,
    WHOLE_PASS,
    signatures,
    xla_name,
)
from sparsectr.calibration import Calibration
from sparsectr.models.ranking_model import RankingModel
from sparsectr.prediction.calibrated import served_probability
from sparsectr.prediction.raw_ids import RawIds
from sparsectr.process.quiet_tensorflow import reason_of

_FINGERPRINT_BITS = 53

Tensors = Mapping[str, Any]


class ServingGraph:
    """A model with its look-up of ids, as the functions that are served.

    Args:
        model: The model.
        raw_ids: The look-up of its schema.
        calibration: What becomes of its logits; `None` for nothing.

    Attributes:
        fingerprint: A number of 53 bits that another schema, recipe or
            weight would change. JSON readers keep it, being doubles.
    """

    def __init__(
        self,
        model: RankingModel,
        raw_ids: RawIds,
        calibration: Calibration | None = None,
    ):
        self._model = model
        self._calibration = calibration
        self._raw_ids = raw_ids
        self.fingerprint = model_fingerprint(model)

    def whole_pass(self, inputs: Tensors) -> dict[str, Any]:
        """Scores raw requests."""
        inputs = _of_equal_rows(inputs)
        return {PROBABILITY: self._probability(self._raw_ids.request(inputs))}

    def encode_user(self, inputs: Tensors) -> dict[str, Any]:
        """Returns the state of raw users and histories."""
        inputs = _of_equal_rows(inputs)
        ids = {**self._raw_ids.user(inputs), **self._raw_ids.behaviors(inputs)}
        if "request_time" in inputs:  # A state that is bound to it.
            ids["request_time"] = inputs["request_time"]
        state = self._model.encode_user(ids)
        rows = tf.shape(ids["behavior_time"])[:1]
        found = {FINGERPRINT: tf.fill(rows, self._constant_fingerprint())}
        for name, value in state.items():
            # Exact, and undone in `score`: the wire has no bfloat16.
            if value.dtype.is_floating:
                value = tf.cast(value, tf.float32)
            found[STATE_PREFIX + name] = value
        return found

    def user_states(self, requests: Tensors) -> dict[str, Any]:
        """Returns what `encode_user` answers, as NumPy arrays."""
        states = self.encode_user(
            {name: tf.constant(value) for name, value in requests.items()}
        )
        return {name: state.numpy() for name, state in states.items()}

    def score(self, inputs: Tensors) -> dict[str, Any]:
        """Scores raw candidates for users that are encoded.

        A state of another model gives NaN, request by request: an assertion
        would fail all requests that the server put into one batch.
        """
        inputs = _of_equal_rows(inputs)
        state = {
            name.removeprefix(STATE_PREFIX): value
            for name, value in inputs.items()
            if name.startswith(STATE_PREFIX) and name != FINGERPRINT
        }
        for name, value in state.items():
            if value.dtype.is_floating:
                state[name] = tf.cast(value, self._model.compute_dtype)
        candidates = self._raw_ids.candidates(inputs)
        probability = self._served(self._model.score(state, candidates).logits)
        own = inputs[FINGERPRINT] == self._constant_fingerprint()
        return {
            PROBABILITY: tf.where(tf.expand_dims(own, 1), probability, np.nan)
        }

    def examples(self, inputs: Tensors) -> dict[str, Any]:
        """Scores requests that were sent as tf.Example.

        A malformed one gives NaN, for the reason that a state does in `score`.
        """
        parsed = parse_examples(self._model.schema, inputs["examples"])
        found = self._probability(self._raw_ids.request(parsed.inputs))
        found = tf.where(parsed.candidate_mask, found, 0.0)
        is_request = tf.expand_dims(parsed.is_request, 1)
        return {PROBABILITY: tf.where(is_request, found, np.nan)}

    def compiled(self) -> Callable[[Tensors], dict[str, Any]]:
        """Returns `whole_pass` compiled by XLA, for one shape.

        The look-up of ids stays outside: XLA has neither texts nor tables.
        """
        probability = tf.function(
            self._probability, jit_compile=True, autograph=False
        )

        def serve(inputs: Tensors) -> dict[str, Any]:
            return {PROBABILITY: probability(self._raw_ids.request(inputs))}

        return serve

    def functions(
        self, xla_buckets: Sequence[tuple[int, int, int]] = ()
    ) -> dict[str, Callable[[Tensors], dict[str, Any]]]:
        """Returns the function behind each signature."""
        found: dict[str, Callable[[Tensors], dict[str, Any]]] = {
            WHOLE_PASS: self.whole_pass,
            ENCODE_USER: self.encode_user,
            SCORE: self.score,
            EXAMPLES: self.examples,
        }
        for bucket in xla_buckets:
            found[xla_name(bucket)] = self.compiled()
        return found

    def write(
        self, path: Path, xla_buckets: Sequence[tuple[int, int, int]] = ()
    ) -> None:
        """Writes the SavedModel.

        Args:
            path: Its folder, which is not there yet.
            xla_buckets: B, L and C of each compiled signature.

        Raises:
            OSError: If it cannot be written.
        """
        functions = self.functions(xla_buckets)
        listed = signatures(self._model.schema, self._model.recipe, xla_buckets)
        # Not `keras.export.ExportArchive`, which traces all of them twice.
        traced = {
            name: _traced(functions[name], inputs)
            for name, (inputs, _) in listed.items()
        }
        # Nothing else: what tracks the model has every weight twice.
        module = tf.Module()
        module.tables = list(self._raw_ids.lookups.values())
        module.weights = list(
            {id(v): v for f in traced.values() for v in f.variables}.values()
        )
        try:
            tf.saved_model.save(module, str(path), traced)
        except tf.errors.OpError as error:
            # A full or read-only disk, which TensorFlow does not call OSError.
            raise OSError(
                f"{path} was not written: {reason_of(error)}"
            ) from error

    def _probability(self, ids: Tensors) -> Any:
        return self._served(self._model(ids, training=False).logits)

    def _served(self, logits: Any) -> Any:
        rate = self._model.schema.negative_rate
        return served_probability(logits, self._calibration, rate)

    def _constant_fingerprint(self) -> Any:
        return tf.constant(self.fingerprint, tf.int64)


def _of_equal_rows(inputs: Tensors) -> dict[str, Any]:
    """Returns the inputs; the call fails if they differ in B.

    Else operations would repeat the row of an input that has only one.
    """
    rows = {name: tf.shape(value)[0] for name, value in inputs.items()}
    sizes = list(rows.values())
    check = tf.debugging.Assert(
        tf.reduce_all(tf.stack(sizes) == sizes[0]),
        # For each input its name and number.
        [
            "the inputs differ in B:",
            *(part for i in rows.items() for part in i),
        ],
    )
    # Before an operation fails that would say less.
    with tf.control_dependencies([check]):
        return {name: tf.identity(value) for name, value in inputs.items()}


def model_fingerprint(model: RankingModel) -> int:
    """Returns 53 bits of a SHA-256 over schema, recipe and weights."""
    digest = hashlib.sha256()
    digest.update(model.schema.to_json().encode())
    digest.update(json.dumps(model.recipe.to_dict()).encode())
    for weight in model.weights:
        # Not the name, in which Keras counts the layers of the process.
        digest.update(str(tuple(weight.shape)).encode())
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    bits = int.from_bytes(digest.digest()[:8], "big")
    return bits >> (64 - _FINGERPRINT_BITS)


def _traced(
    function: Callable[[Tensors], dict[str, Any]], inputs: Sequence[Tensor]
) -> Any:
    """Returns a function of named tensors as one graph."""

    def serve(**tensors: Any) -> dict[str, Any]:
        return function(tensors)

    specs = {tensor.name: _spec(tensor) for tensor in inputs}
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _spec(tensor: Tensor) -> Any:
    shape = [axis if isinstance(axis, int) else None for axis in tensor.shape]
    # The name of the spec has to be its key: a server sends by name.
    return tf.TensorSpec(shape, tensor.dtype, name=tensor.name)
