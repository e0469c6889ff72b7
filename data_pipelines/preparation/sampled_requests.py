"""A few requests as they were logged, kept beside the ids of the store.

What is made from a store for a client, an export above all, is tried with
them: they never were ids.

Which requests: of the test split, which no preparation leaves empty. They
are put into classes by the length of their whole history in bits (0; 1; 2
and 3; 4 to 7; ...). The classes take turns, that of the longest first, so
that long histories are among them however rare they are; within a class a
hash of the user's raw id and of the request's place among the user's own
decides. So the choice depends on the rows alone, and not on engine, shards
and processes, and fewer requests are the first rows of more.

In which form: a Parquet file in the layout of docs/requests.md. Values are
those that the data set's module has read, from before a code or an id was made
of them, and null where one is missing.

    user_<field>, request_time             plain columns
    behavior_<field>, behavior_time        lists, the newest `MOST_BEHAVIORS`
    candidate_<field>, label               lists
    request                                its number in the test split,
                                           counted over all shards

They are people's data: a preparation can leave them out. The store's
`content`, by which stores are compared, does not cover them, for the ids are
the same with and without; the SHA-256 of the file is in the manifest.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.preparation.field_values import field_values
from data_pipelines.preparation.listwise import Listwise
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.hashing import hash_ids, hash_rows
from data_pipelines.stores.id_sets import IdSets
from data_pipelines.stores.shard import stored_ids
from data_pipelines.stores.store import Store
from data_pipelines.stores.vocabulary import Vocabulary
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import PREFIXES, CategoricalField

Array = npt.NDArray[Any]

MOST_BEHAVIORS = 4096
"""A sample takes no more memory than this allows, however long histories."""

_LENGTH, _HASH = "__length", "__hash"

_ROWS = 32
"""Requests that are encoded at a time."""


def choose(length: Array, hashed: Array, count: int) -> Array:
    """Returns which requests are chosen, in the order of their rows.

    The choice among the chosen of several parts is that among all: no more
    requests come before one in its part than among all.

    Args:
        length: `[num_requests]`, behaviors in the history.
        hashed: uint64 `[num_requests]`.
        count: How many, at most.
    """
    _, bits = np.frexp(length)
    order = np.lexsort((hashed, bits))
    bits = bits[order]
    rank = np.arange(len(order)) - np.searchsorted(bits, bits)
    return order[np.lexsort((-bits, rank))[:count]]


def sample_shard(rows: Listwise, is_test: Array, count: int) -> pa.Table:
    """Returns what a shard can add to the sample, as `merge_samples` reads it.

    Args:
        rows: The raw values of the shard.
        is_test: bool `[num_requests]`, True for a request of the test split.
        count: Requests of the whole sample.
    """
    user, end = rows.request_user[is_test], rows.history_end[is_test]
    start = np.searchsorted(rows.behavior_user, user)
    place = np.arange(len(user)) - np.searchsorted(user, user)
    hashed = hash_rows([hash_ids(rows.user_id)[user], place])
    chosen = choose(end - start, hashed, count)
    request = np.flatnonzero(is_test)[chosen]
    columns: dict[str, Any] = {
        "request": chosen,
        _LENGTH: (end - start)[chosen],
        _HASH: hashed[chosen],
        "request_time": rows.request_time[request],
    }
    profiles = rows.profiles.take(pa.array(request))
    for name in profiles.column_names:
        columns[f"user_{name}"] = profiles[name]
    newest = np.maximum(start, end - MOST_BEHAVIORS)[chosen]
    behaviors = rows.behaviors.append_column(
        "time", pa.array(rows.behavior_time)
    )
    columns |= _lists("behavior_", behaviors, newest, end[chosen])
    columns |= _lists(
        "candidate_",
        rows.candidates,
        rows.candidate_offset[request],
        rows.candidate_offset[request + 1],
    )
    columns["label"] = columns.pop("candidate_label")
    return pa.table(columns)


def merge_samples(
    samples: Iterable[tuple[Path, int]], path: Path, count: int
) -> None:
    """Writes the sample of all shards from those of each.

    Args:
        samples: The file of each shard, and the number of its first request
            of the test split.
        path: The file to write.
        count: Requests of the sample, at most.

    Memory:
        Twice the requests of the sample.
    """
    parts: list[pa.Table] = []
    for file, first in samples:
        table = pq.read_table(file)
        number = pa.array(table["request"].to_numpy() + first)
        parts.append(table.set_column(0, "request", number))
        merged = pa.concat_tables(parts)
        chosen = choose(
            merged[_LENGTH].to_numpy(), merged[_HASH].to_numpy(), count
        )
        parts = [merged.take(pa.array(chosen))]
    (table,) = parts
    pq.write_table(table.drop_columns([_LENGTH, _HASH]), path)


def check_samples(store: Store) -> int:
    """Encodes the sample of a store anew, and holds it against the ids.

    Returns:
        How many requests there are.

    Raises:
        InputError: If one is not the request of the store that it names.
    """
    path = store.sampled_requests
    if path is None:
        return 0
    config = DataConfig(max_history=MOST_BEHAVIORS)
    reader = Batches(store, "test", config, _ROWS, None)
    vocabularies = store.vocabularies()
    fields = {
        f"{prefix}_{field.name}": field
        for prefix in PREFIXES
        for field in stored_ids(store.schema, prefix)
    }
    file = pq.ParquetFile(path)
    for rows in file.iter_batches(_ROWS):
        request = rows["request"].to_numpy()
        if request.min() < 0 or request.max() >= reader.num_requests:
            raise InputError(f"{path} names a request that is not there.")
        batch = reader.batch_of(request)
        masks = {"behavior": batch["behavior_time"] > 0}
        masks["candidate"] = masks["label"] = batch.pop("candidate_mask")
        for name, ids in batch.items():
            column = rows[name]
            mask = masks.get(name.split("_")[0])
            if mask is not None:
                lengths = column.value_lengths().to_numpy()
                is_equal = np.array_equal(lengths, mask.sum(axis=1))
                column, ids = column.flatten(), ids[mask]
            else:
                is_equal = True
            if not is_equal or not np.array_equal(
                _encoded(column, fields.get(name), vocabularies, ids),
                ids,
                equal_nan=ids.dtype.kind == "f",
            ):
                raise InputError(
                    f"{path}: `{name}` is not what the store has for it."
                )
    return file.metadata.num_rows


def _encoded(
    column: pa.Array,
    field: CategoricalField | None,
    vocabularies: Mapping[str, Vocabulary],
    like: Array,
) -> Array:
    """Returns what the store should have for raw values.

    Args:
        column: One value, or one set, a row.
        field: Whose values; `None` for numbers and times.
        vocabularies: By table.
        like: What it has.
    """
    if field is None:
        numbers: Array = column.to_numpy(zero_copy_only=False)
        return numbers
    raw = field_values(pa.chunked_array([column]), field)
    found = raw.column_of(vocabularies[field.table].encode(raw.values))
    if isinstance(found, IdSets):
        return found.padded(max(like.shape[-1], found.longest))
    return np.asarray(found)


def _lists(
    prefix: str, table: pa.Table, start: Array, end: Array
) -> dict[str, pa.Array]:
    """Returns rows `start` to `end` of every column as lists."""
    offset = np.concatenate([[0], np.cumsum(end - start)])
    row = np.arange(offset[-1]) + np.repeat(start - offset[:-1], end - start)
    table = table.take(pa.array(row))
    return {
        f"{prefix}{name}": pa.ListArray.from_arrays(
            pa.array(offset, pa.int32()), table[name].combine_chunks()
        )
        for name in table.column_names
    }
