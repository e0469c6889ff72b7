"""The scores of a split, one row a candidate, in a Parquet file."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.parquet_writer import parquet_writer
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from sparsectr.file_systems.paths import Location
from sparsectr.schema import NUM_RESERVED_IDS, PADDING_ID

Predict = Callable[[Mapping[str, Any]], Any]


@contextlib.contextmanager
def recorded_scores(
    predict: Predict, location: Location | None, batches: Batches, store: Store
) -> Iterator[Predict]:
    """Yields what predicts, and writes the scores to a file besides.

    docs/requests.md has the columns.

    Args:
        predict: Maps a batch to logits `[B, C]`. It is called with one epoch
            of batches, in order.
        location: The file, replaced if it exists; whole or not at all.
            `None` for none.
        batches: Where the batches come from.
        store: Where `batches` come from.

    Raises:
        InputError: If there cannot be such a file.
        OSError: If the disk is full or not writable.
    """
    if location is None:
        yield predict
        return
    fields = store.schema.candidate_fields
    vocabularies = {f.table: store.vocabulary(f.table) for f in fields}
    schema = _columns(store, vocabularies)
    with parquet_writer(location, schema) as write:
        step = 0

        def predict_and_write(batch: Mapping[str, Any]) -> Any:
            nonlocal step
            logits = predict(batch)
            rows = _rows(
                step, batch, np.asarray(logits), batches, store, vocabularies
            )
            write(pa.RecordBatch.from_pydict(rows, schema))
            step += 1
            return logits

        yield predict_and_write


def _columns(store: Store, vocabularies: Mapping[str, Vocabulary]) -> pa.Schema:
    is_text = store.shards[0].user_id.dtype.kind == "S"
    candidates = {}
    for field in store.schema.candidate_fields:
        vocabulary = vocabularies[field.table]
        is_hashed = vocabulary.values is None
        value = pa.int32() if is_hashed else arrow_type(vocabulary.table)
        candidates[field.name] = pa.list_(value) if field.is_set else value
    for number in store.schema.candidate_dense_fields:
        candidates[number.name] = pa.float32()
    return pa.schema(
        {
            "request": pa.int64(),
            "user": pa.string() if is_text else pa.int64(),
            "time": pa.int64(),
            **{f"candidate_{name}": kind for name, kind in candidates.items()},
            "label": pa.uint8(),
            "logit": pa.float32(),
            "probability": pa.float32(),
        }
    )


def _rows(
    step: int,
    batch: Mapping[str, Any],
    logits: Any,
    batches: Batches,
    store: Store,
    vocabularies: Mapping[str, Vocabulary],
) -> dict[str, Any]:
    """Returns the columns of a step's candidates."""
    requests, _ = batches.requests(step)
    user, time = batches.users(step)
    known = batches.labels(step, logits.shape[1])
    counts = known.mask.sum(axis=1)
    schema = store.schema

    def column(name: str) -> Any:
        values = np.asarray(batch[f"candidate_{name}"])
        return values[: len(requests)][known.mask]

    candidates = {}
    for field in schema.candidate_fields:
        ids = column(field.name)
        name = f"candidate_{field.name}"
        vocabulary = vocabularies[field.table]
        if not field.is_set:
            candidates[name] = _raw(ids, vocabulary)
            continue
        is_id = ids != PADDING_ID
        offset = np.cumsum([0, *is_id.sum(axis=1)], dtype=np.int32)
        values = pa.array(_raw(ids[is_id], vocabulary))
        candidates[name] = pa.ListArray.from_arrays(offset, values)
    for number in schema.candidate_dense_fields:
        candidates[f"candidate_{number.name}"] = column(number.name)
    logit = logits[: len(requests)][known.mask]
    served = logit + np.float32(math.log(schema.negative_rate))
    return {
        "request": np.repeat(requests, counts),
        "user": np.repeat(user, counts),
        "time": np.repeat(time, counts),
        **candidates,
        "label": known.label,
        "logit": logit,
        "probability": np.exp(-np.logaddexp(np.float32(0), -served)),
    }


def _raw(ids: Any, vocabulary: Vocabulary) -> Any:
    """Returns raw values, null for what is none; ids of a hashed table."""
    if vocabulary.values is None:
        return ids
    places = pa.array(ids - NUM_RESERVED_IDS, mask=ids < NUM_RESERVED_IDS)
    return vocabulary.values.take(places)
