"""The scores of a split, one row a candidate, in a Parquet file."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.parquet_writer import parquet_writer
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from sparsectr.file_systems.paths import Location
from sparsectr.schema import NUM_RESERVED_IDS

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
    vocabularies = {
        field.name: store.vocabulary(field.table)
        for field in store.schema.candidate_fields
    }
    schema = _columns(store, vocabularies)
    with parquet_writer(location, schema) as write:
        step = 0

        def predict_and_write(batch: Mapping[str, Any]) -> Any:
            nonlocal step
            logits = predict(batch)
            rows = _rows(step, batch, np.asarray(logits), batches, vocabularies)
            write(pa.RecordBatch.from_pydict(rows, schema))
            step += 1
            return logits

        yield predict_and_write


def _columns(store: Store, vocabularies: Mapping[str, Vocabulary]) -> pa.Schema:
    is_text = store.shards[0].user_id.dtype.kind == "S"
    return pa.schema(
        {
            "request": pa.int64(),
            "user": pa.string() if is_text else pa.int64(),
            "time": pa.int64(),
            **{
                f"candidate_{name}": pa.int32()
                if vocabulary.values is None
                else arrow_type(vocabulary.table)
                for name, vocabulary in vocabularies.items()
            },
            **{
                f"candidate_{dense.name}": pa.float32()
                for dense in store.schema.candidate_dense_fields
            },
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
    vocabularies: Mapping[str, Vocabulary],
) -> dict[str, Any]:
    """Returns the columns of a step's candidates."""
    requests, _ = batches.requests(step)
    user, time = batches.users(step)
    known = batches.labels(step, logits.shape[1])
    counts = known.mask.sum(axis=1)
    candidates = {
        name: np.asarray(values)[: len(requests)][known.mask]
        for name, values in batch.items()
        if name.startswith("candidate_") and name != "candidate_mask"
    }
    for name, vocabulary in vocabularies.items():
        if vocabulary.values is not None:
            ids = candidates[f"candidate_{name}"]
            places = pa.array(
                ids - NUM_RESERVED_IDS, mask=ids < NUM_RESERVED_IDS
            )
            candidates[f"candidate_{name}"] = vocabulary.values.take(places)
    logit = logits[: len(requests)][known.mask]
    return {
        "request": np.repeat(requests, counts),
        "user": np.repeat(user, counts),
        "time": np.repeat(time, counts),
        **candidates,
        "label": known.label,
        "logit": logit,
        "probability": np.exp(-np.logaddexp(np.float32(0), -logit)),
    }
