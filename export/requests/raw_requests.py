"""Batches of a store back as the raw values that a client would send."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.store import Store
from data_pipelines.vocabulary import (
    Vocabulary,
    integers_of_hashes,
    missing_value,
)
from sparsectr.errors import InputError
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    OUT_OF_VOCABULARY_ID,
    DatasetSchema,
)

Array = npt.NDArray[Any]


def vocabularies_of(store: Store) -> dict[str, Vocabulary]:
    """Returns the vocabulary of every table of a store."""
    return {
        table.name: store.vocabulary(table.name)
        for table in store.schema.tables
    }


def raw_requests(store: Store, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the raw values that encode to the ids of a batch.

    Those of a vocabulary are the very values of the log. A hash cannot be
    undone: the value is another one with the same hash. Neither can an
    unknown value: it is one that the vocabulary does not have.

    Args:
        store: Where the batch is from.
        batch: What the training reader makes of it.

    Returns:
        The inputs of `serving_default`.

    Raises:
        InputError: If an id of the batch stands for no raw value.
    """
    return RawRequests(store.schema, vocabularies_of(store)).of(batch)


class RawRequests:
    """Turns batches back, many of them.

    Args:
        schema: The fields.
        vocabularies: The vocabulary of every table.
    """

    def __init__(
        self, schema: DatasetSchema, vocabularies: Mapping[str, Vocabulary]
    ) -> None:
        self._schema = schema
        self._decoders = {
            name: _Decoder(vocabulary)
            for name, vocabulary in vocabularies.items()
        }

    def of(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the raw values of a batch, as `raw_requests` does."""
        padding = {"behavior": batch["behavior_time"] == 0}
        if "candidate_mask" in batch:
            padding["candidate"] = ~batch["candidate_mask"]
        kept = ["behavior_time", "request_time"]
        for dense in self._schema.candidate_dense_fields:
            kept.append(f"candidate_{dense.name}")
        found = {name: batch[name] for name in kept}
        for prefix, fields in (
            ("user", self._schema.user_fields),
            ("behavior", self._schema.behavior_fields),
            ("candidate", self._schema.candidate_fields),
        ):
            for field in fields:
                name = f"{prefix}_{field.name}"
                found[name] = self._decoders[field.table].decode(
                    batch[name], padding.get(prefix)
                )
        return found


class _Decoder:
    """Raw values of the ids of one table."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._name = vocabulary.table.name
        self._missing = missing = missing_value(vocabulary.table)
        self._values: Array | None = None
        if vocabulary.values is not None:
            known = vocabulary.values.to_pylist()
            is_integer = vocabulary.table.value_type == "int"
            unknown = _value_outside(set(known), is_integer)
            self._values = np.array(
                [missing, unknown, *known], np.int64 if is_integer else object
            )

    def decode(self, ids: Array, padding: Array | None) -> Array:
        """Returns raw values, like `ids` in shape."""
        if self._values is not None:
            return self._values[ids]
        real = np.ones(ids.shape, bool) if padding is None else ~padding
        if np.any(real & (ids == OUT_OF_VOCABULARY_ID)):
            raise InputError(
                f"Table {self._name!r} is hashed: no value has the id "
                f"{OUT_OF_VOCABULARY_ID}."
            )
        hashed = integers_of_hashes(np.maximum(ids, NUM_RESERVED_IDS))
        return np.where(ids < NUM_RESERVED_IDS, self._missing, hashed)


def _value_outside(known: set[Any], is_integer: bool) -> Any:
    """Returns a value that is none of those."""
    candidates = itertools.count()
    if is_integer:
        return next(n for n in candidates if n not in known)
    texts = (f"unknown {number}" for number in candidates)
    return next(text for text in texts if text not in known)
