"""Raw values to ids as operations of a graph, served or not.

Axes: B requests, L history length, C candidates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from data_pipelines.stores.hashing import FINGERPRINTS
from data_pipelines.stores.vocabulary import (
    Vocabulary,
    hashed_ids,
    missing_value,
)
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    DatasetSchema,
    Prefix,
)

_LINE_BREAKS = "[\n\r]"


class RawIds:
    """What `Vocabulary.encode` does, as operations of a graph.

    Hashing is the preparation's own function, `hashed_ids`, behind the same
    fingerprints of texts. The look-up in a
    frozen vocabulary is not: Arrow does it there, and here a table that is
    read from an asset when the model is loaded, one line a value.

    Args:
        schema: The fields of the model.
        vocabularies: The vocabulary of each table that a field names.
        folder: Where the assets are written.
        max_history: Newest behaviors of a history that are read, as in
            training.

    Attributes:
        lookups: The `tf.lookup` tables, which the export has to track.
    """

    def __init__(
        self,
        schema: DatasetSchema,
        vocabularies: Mapping[str, Vocabulary],
        folder: Path,
        max_history: int,
    ) -> None:
        self._schema = schema
        self._max_history = max_history
        self.lookups = {
            name: _lookup(folder / f"{name}.txt", vocabulary.values)
            for name, vocabulary in vocabularies.items()
            # TensorFlow has no table without a value.
            if vocabulary.values is not None and len(vocabulary.values)
        }

    def request(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns whole requests as the model reads them."""
        return {
            **self.user(inputs),
            **self.behaviors(inputs),
            **self.candidates(inputs),
        }

    def user(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the profile as the model reads it, `[B]`."""
        return self._encoded("user", inputs)

    def behaviors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the newest of the history as the model reads it, `[B, L]`.

        Whatever was sent where there is no time is padding.
        """
        names = ["behavior_time", *self._names("behavior")]
        newest = {
            name: value[:, -self._max_history :]
            for name, value in _of_one_shape(inputs, names).items()
        }
        # Negative times are padding as well, and nothing computes with them.
        time = tf.maximum(newest["behavior_time"], 0)
        found = {"behavior_time": time}
        for name, value in self._encoded("behavior", newest).items():
            is_valid = time > 0
            if value.shape.rank == 3:  # a set
                is_valid = tf.expand_dims(is_valid, -1)
            nothing = tf.constant(PADDING_ID, value.dtype)
            found[name] = tf.where(is_valid, value, nothing)
        return found

    def candidates(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns time and candidates as the model reads them, `[B, C]`."""
        values = _of_one_shape(inputs, self._names("candidate"))
        found = self._encoded("candidate", values)
        return {"request_time": inputs["request_time"], **found}

    def ids(self, table: str, values: Any) -> Any:
        """Returns the ids of raw values, int32.

        Args:
            table: Name of the table.
            values: int64 or string tensor of any shape.
        """
        spec = self._schema.table(table)
        if spec.kind == "hashed":
            numbers = values
            if spec.value_type == "string":
                numbers = tf.strings.to_hash_bucket_fast(values, FINGERPRINTS)
            ids = hashed_ids(
                tf.bitcast(numbers, tf.uint64),
                spec.size or 0,
                tf.bitwise.right_shift,
                lambda number: tf.constant(number, tf.uint64),
            )
        elif table in self.lookups:
            ids = self.lookups[table].lookup(values)
        else:
            ids = tf.fill(tf.shape(values), OUT_OF_VOCABULARY_ID)
        is_missing = values == tf.constant(missing_value(spec), values.dtype)
        return tf.where(is_missing, PADDING_ID, tf.cast(ids, tf.int32))

    def _names(self, prefix: Prefix) -> list[str]:
        names = [field.name for field in self._schema.ids(prefix)]
        names += [number.name for number in self._schema.numbers(prefix)]
        return [f"{prefix}_{name}" for name in names]

    def _encoded(
        self, prefix: Prefix, inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the ids of raw values, and numbers as they are."""
        found = {name: inputs[name] for name in self._names(prefix)}
        # Neither texts nor tables exist on a GPU.
        with tf.device("/cpu:0"):
            for field in self._schema.ids(prefix):
                name = f"{prefix}_{field.name}"
                found[name] = self.ids(field.table, found[name])
        return found


def _of_one_shape(
    inputs: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Returns some of the inputs; the call fails if their columns differ."""
    first, *others = names
    # Else one column would be repeated for a whole history.
    checks = [
        tf.debugging.assert_equal(
            tf.shape(inputs[name])[:2],
            tf.shape(inputs[first])[:2],
            f"{name} must have the shape of {first}",
        )
        for name in others
    ]
    # Before an operation fails that would say less.
    with tf.control_dependencies(checks):
        found = {name: tf.identity(inputs[name]) for name in names}
    shape = tf.shape(inputs[first])[:2]
    for name, value in found.items():
        if value.shape.rank == 3:
            # JSON does not tell how large the sets of no behavior are.
            sizes = tf.concat([shape, value.shape[2:]], axis=0)
            found[name] = tf.reshape(value, sizes)
    return found


def _lookup(path: Path, values: Any) -> Any:
    dtype = tf.int64 if pa.types.is_integer(values.type) else tf.string
    if _fits_lines(values):
        lines = values.cast(pa.string()).to_pylist()
        # Bytes: text mode would change line ends on some systems.
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
        initializer = tf.lookup.TextFileInitializer(
            str(path),
            key_dtype=dtype,
            key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            value_dtype=tf.int64,
            value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            value_index_offset=NUM_RESERVED_IDS,
        )
    else:
        # In the graph itself, which holds any text.
        places = range(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(values))
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(values.to_pylist(), dtype),
            tf.constant(list(places), tf.int64),
        )
    return tf.lookup.StaticHashTable(initializer, OUT_OF_VOCABULARY_ID)


def _fits_lines(values: Any) -> bool:
    """Whether a text file gives the values back: no broken line."""
    if pa.types.is_integer(values.type):
        return True
    broken = pc.match_substring_regex(values, _LINE_BREAKS)
    return not pc.any(broken).as_py()
