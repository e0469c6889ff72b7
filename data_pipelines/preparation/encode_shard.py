"""One shard with the ids of the vocabularies, as it stands in the store."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipelines.preparation.build_shard import read_counts
from data_pipelines.stores.content_digest import shard_content
from data_pipelines.stores.growing_store import read_ids
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.shard import SPLITS, Shard, stored_ids
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.vocabulary import Vocabulary, id_dtype
from sparsectr.schema import (
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    DatasetSchema,
    Prefix,
)

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """What is needed to encode a shard.

    Args:
        schema: Schema with the size of every table.
        vocabularies: Folder of the vocabularies as Arrow files.
        coded: Folder of the coded shard.
        folder: Where the shard goes.
        summaries: Folder of what was found in each shard.
        validation_time: Unix seconds at which the validation begins.
        ids: Folder of the ids of a store that can grow, whose vocabularies
            here are all values that it knows; `None` for any other.
    """

    schema: DatasetSchema
    vocabularies: Path
    coded: Path
    folder: Path
    summaries: Path
    validation_time: int
    ids: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedSummary:
    """What one shard adds to the manifest.

    Args:
        counts: Users and behaviors; requests, candidates and positives of
            each split and part.
        longest_sets: The most ids of a set of each field.
        ids: For each field and part of the store, how many ids there are and
            how many of them say missing or out of vocabulary.
        content: What it adds to the digest of the store.
        files: Bytes and SHA-256 of its files, by their names.
    """

    counts: Mapping[str, Any]
    longest_sets: Mapping[str, int]
    ids: Mapping[str, Mapping[str, int]]
    content: Mapping[str, int]
    files: Mapping[str, Mapping[str, Any]]


def encode_shard(task: EncodeTask) -> EncodedSummary:
    """Writes a shard of the store, or nothing; deletes the coded one then.

    A shard that is there already is not written again.
    """
    done = task.summaries / f"{task.folder.name}.json"
    if not done.exists():
        partial = task.folder.with_name(f".{task.folder.name}.partial")
        for left in (partial, task.folder):
            shutil.rmtree(left, ignore_errors=True)
        summary = _encode(task, partial)
        partial.rename(task.folder)
        # Last: what it says is of a shard that is there.
        hidden = done.with_name(f".{done.name}.partial")
        hidden.write_text(json.dumps(dataclasses.asdict(summary)), "utf-8")
        hidden.replace(done)
    shutil.rmtree(task.coded, ignore_errors=True)
    return EncodedSummary(**json.loads(done.read_text("utf-8")))


def describe_files(folder: Path, names: Sequence[Path]) -> dict[str, Any]:
    """Returns bytes and SHA-256 of files, by their names under `folder`."""
    found = {}
    for path in names:
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    return found


def count_ids(shard: Shard) -> dict[str, dict[str, int]]:
    """Returns how many ids of each column are missing or unknown."""
    columns = {f"behavior_{k}": v for k, v in shard.behaviors.items()}
    for split in SPLITS:
        requests = shard.splits[split]
        columns |= {f"{split} user_{k}": v for k, v in requests.users.items()}
        columns |= {
            f"{split} candidate_{k}": v for k, v in requests.candidates.items()
        }
    # An empty set has no id that would say missing.
    ids = {
        name: np.asarray(
            column.values if isinstance(column, IdSets) else column
        )
        for name, column in columns.items()
    }
    return {
        name: {
            "rows": len(column),
            "missing": int(np.count_nonzero(column == PADDING_ID)),
            "out_of_vocabulary": int(
                np.count_nonzero(column == OUT_OF_VOCABULARY_ID)
            ),
        }
        for name, column in ids.items()
        if column.dtype.kind in "ui"
    }


def _encode(task: EncodeTask, folder: Path) -> EncodedSummary:
    coded = Shard.open(task.coded, task.schema)
    ids = {
        table.name: _ids_of_codes(task, table.name)
        for table in task.schema.tables
    }

    def encode(columns: Mapping[str, Column], prefix: Prefix) -> dict[str, Any]:
        encoded = dict(columns)
        for field in stored_ids(task.schema, prefix):
            codes = columns[field.name]
            own = ids[field.table]
            encoded[field.name] = (
                codes.map(own) if isinstance(codes, IdSets) else own[codes]
            )
        return encoded

    shard = dataclasses.replace(
        coded,
        behaviors=encode(coded.behaviors, "behavior"),
        splits={
            split: dataclasses.replace(
                requests,
                users=encode(requests.users, "user"),
                candidates=encode(requests.candidates, "candidate"),
            )
            for split, requests in coded.splits.items()
        },
    )
    shard.save(folder)
    return EncodedSummary(
        counts=count_rows(shard, task.validation_time),
        longest_sets=shard.longest_sets(),
        ids=count_ids(
            shard
            if task.ids is None
            else Shard.open(
                folder, task.schema, read_ids(task.ids, task.schema)
            )
        ),
        content=shard_content(shard),
        files=describe_files(folder, sorted(folder.rglob("*.npy"))),
    )


def _ids_of_codes(task: EncodeTask, name: str) -> Array:
    """Returns the id of every code of a table; that of 0, missing, is 0."""
    table = task.schema.table(name)
    vocabulary = Vocabulary(
        table,
        None if table.kind == "hashed" else _read(task.vocabularies, name),
    )
    values = read_counts(task.coded, name)["value"]
    ids = np.zeros(len(values) + 1, id_dtype(vocabulary.table.size or 0))
    ids[1:] = vocabulary.encode(values)
    return ids


def _read(folder: Path, name: str) -> pa.Array:
    with pa.memory_map(str(folder / f"{name}.arrow")) as file:
        return pa.ipc.open_file(file).read_all()["value"].combine_chunks()
