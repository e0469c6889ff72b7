"""All rows of some users as columns, in memory or memory-mapped."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipelines.stores.coded_ids import CodedIds
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.request_columns import RequestColumns
from sparsectr.errors import InputError
from sparsectr.schema import CategoricalField, DatasetSchema, Prefix

Array = npt.NDArray[Any]

SPLITS = ("train", "test")

WEIGHT = "weight"
"""Name of the column of candidates' weights, where there is one."""

_OFFSET = ".offset"
"""Ends the name of the file beside that of the ids of sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Users, their histories and their requests.

    Args:
        user_id: int64 or bytes `[num_users]`, raw user ids, ascending.
        behavior_offset: int64 `[num_users + 1]`; the history of user `u` is
            behavior rows `behavior_offset[u]` to `behavior_offset[u + 1]`.
        behavior_time: uint32 `[num_behaviors]`, Unix seconds, never
            descending within a user.
        behaviors: One column a behavior field, `[num_behaviors]`: ids, sets
            of ids, or float32 with NaN for a missing number.
        splits: The requests of "train" and of "test".
    """

    user_id: Array
    behavior_offset: Array
    behavior_time: Array
    behaviors: Mapping[str, Column]
    splits: Mapping[str, RequestColumns]

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.user_id)

    @property
    def num_behaviors(self) -> int:
        """Number of behaviors of all users."""
        return len(self.behavior_time)

    def counts(self) -> dict[str, Any]:
        """Returns the numbers of rows, as the manifest has them."""
        counts: dict[str, Any] = {
            "users": self.num_users,
            "behaviors": self.num_behaviors,
        }
        return counts | {s: count_requests(self.splits[s]) for s in SPLITS}

    def longest_sets(self) -> dict[str, int]:
        """Returns the most ids of a set of each tensor."""
        groups = {"behavior": [self.behaviors]}
        groups["user"] = [split.users for split in self.splits.values()]
        groups["candidate"] = [s.candidates for s in self.splits.values()]
        return longest_of(
            {
                f"{prefix}_{name}": column.longest
                for name, column in columns.items()
                if isinstance(column, IdSets)
            }
            for prefix, parts in groups.items()
            for columns in parts
        )

    def save(self, folder: Path) -> None:
        """Writes every column as a `.npy` file under `folder`."""
        for name, column in self.files().items():
            path = folder / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, column, allow_pickle=False)

    def files(self) -> dict[str, Array]:
        """Returns every column by the name of its file, without `.npy`."""
        columns: dict[str, Column] = {
            "users/id": self.user_id,
            "users/behavior_offset": self.behavior_offset,
            "behaviors/time": self.behavior_time,
        }
        columns |= {f"behaviors/{k}": v for k, v in self.behaviors.items()}
        for split, requests in self.splits.items():
            columns[f"{split}/user"] = requests.user
            for name, column in requests.users.items():
                columns[f"{split}/user_{name}"] = column
            columns[f"{split}/time"] = requests.time
            columns[f"{split}/history_end"] = requests.history_end
            columns[f"{split}/candidate_offset"] = requests.candidate_offset
            columns[f"{split}/candidate_label"] = requests.label
            for name, column in requests.candidates.items():
                columns[f"{split}/candidate_{name}"] = column
        files: dict[str, Array] = {}
        for name, column in columns.items():
            if isinstance(column, IdSets):
                files[name] = np.asarray(column.values)
                files[name + _OFFSET] = column.offset
            else:
                files[name] = np.asarray(column)
        return files

    @classmethod
    def open(
        cls,
        folder: Path,
        schema: DatasetSchema,
        ids: Mapping[str, Array] | None = None,
    ) -> "Shard":
        """Memory-maps the columns under `folder`.

        Args:
            folder: Folder of the shard.
            schema: Schema of the store.
            ids: By table, the id of each code, where the columns hold codes
                and are to be read as ids; see `CodedIds`.

        Raises:
            InputError: If a file is absent or damaged, or its length does
                not fit the others.
        """
        user_id = _open_column(folder, "users/id")
        offset = _open_column(folder, "users/behavior_offset")
        _check_length(folder, "users/behavior_offset", offset, len(user_id) + 1)
        num_behaviors = int(offset[-1])
        return cls(
            user_id=user_id,
            behavior_offset=offset,
            behavior_time=_open_rows(folder, "behaviors/time", num_behaviors),
            behaviors=_open_fields(
                folder, "behaviors/", schema, "behavior", num_behaviors, ids
            ),
            splits={
                split: _open_requests(folder, split, schema, ids)
                for split in SPLITS
            },
        )


def count_requests(
    requests: RequestColumns, chosen: Array | None = None
) -> dict[str, int]:
    """Returns the numbers of rows of some requests, or of all.

    Args:
        requests: The requests.
        chosen: bool `[num_requests]`, which of them.
    """
    num_candidates, label = np.diff(requests.candidate_offset), requests.label
    if chosen is not None:
        label = label[np.repeat(chosen, num_candidates)]
        num_candidates = num_candidates[chosen]
    return {
        "requests": len(num_candidates),
        "candidates": len(label),
        "positives": int(label.sum()),
    }


def longest_of(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the largest of the values of each key."""
    longest: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            longest[name] = max(longest.get(name, 0), value)
    return longest


def add_nested(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up the numbers of dicts that have the same keys."""
    total: dict[str, Any] = {}
    for key in parts[0]:
        values = [part[key] for part in parts]
        total[key] = (
            add_nested(values)
            if isinstance(values[0], Mapping)
            else sum(values)
        )
    return total


def stored_numbers(schema: DatasetSchema, prefix: Prefix) -> tuple[str, ...]:
    """Returns the names of the float32 columns of a store."""
    names = tuple(field.name for field in schema.numbers(prefix))
    has_weight = prefix == "candidate" and schema.has_weight
    return (*names, WEIGHT) if has_weight else names


def stored_ids(
    schema: DatasetSchema, prefix: Prefix
) -> tuple[CategoricalField, ...]:
    """Returns the fields of ids and sets that a store has columns of."""
    extra = schema.training_fields if prefix == "candidate" else ()
    return (*schema.ids(prefix), *extra)


def logged_numbers(schema: DatasetSchema, prefix: Prefix) -> list[str]:
    """Returns those of `stored_numbers` that raw tables have: no statistic."""
    counted = {n.name for s in schema.statistics for n in s.numbers}
    if prefix != "candidate":
        counted = set()
    return [n for n in stored_numbers(schema, prefix) if n not in counted]


def logged_names(schema: DatasetSchema, prefix: Prefix) -> list[str]:
    """Returns the names of all columns that a store has of raw tables."""
    ids = [field.name for field in stored_ids(schema, prefix)]
    return [*ids, *logged_numbers(schema, prefix)]


def _open_requests(
    folder: Path,
    split: str,
    schema: DatasetSchema,
    ids: Mapping[str, Array] | None,
) -> RequestColumns:
    user = _open_column(folder, f"{split}/user")
    offset = _open_column(folder, f"{split}/candidate_offset")
    _check_length(folder, f"{split}/candidate_offset", offset, len(user) + 1)
    num_requests, num_candidates = len(user), int(offset[-1])
    return RequestColumns(
        user=user,
        users=_open_fields(
            folder, f"{split}/user_", schema, "user", num_requests, ids
        ),
        time=_open_rows(folder, f"{split}/time", num_requests),
        history_end=_open_rows(folder, f"{split}/history_end", num_requests),
        candidate_offset=offset,
        candidates=_open_fields(
            folder,
            f"{split}/candidate_",
            schema,
            "candidate",
            num_candidates,
            ids,
        ),
        label=_open_rows(folder, f"{split}/candidate_label", num_candidates),
    )


def _open_fields(
    folder: Path,
    path: str,
    schema: DatasetSchema,
    prefix: Prefix,
    length: int,
    ids: Mapping[str, Array] | None,
) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for field in stored_ids(schema, prefix):
        name = path + field.name
        if field.is_set:
            offset = _open_rows(folder, name + _OFFSET, length + 1)
            values = _open_rows(folder, name, int(offset[-1]))
            found[field.name] = IdSets(offset, _as_ids(values, field, ids))
        else:
            values = _open_rows(folder, name, length)
            found[field.name] = _as_ids(values, field, ids)
    for number in stored_numbers(schema, prefix):
        found[number] = _open_rows(folder, path + number, length)
    return found


def _as_ids(
    values: Array, field: CategoricalField, ids: Mapping[str, Array] | None
) -> Array | CodedIds:
    own = None if ids is None else ids.get(field.table)
    return values if own is None else CodedIds(values, own)


def _open_rows(folder: Path, name: str, length: int) -> Array:
    values = _open_column(folder, name)
    _check_length(folder, name, values, length)
    return values


def _open_column(folder: Path, name: str) -> Array:
    path = folder / f"{name}.npy"
    try:
        # Not `np.load`, whose maps each hold a file descriptor: a store may
        # have more columns than a process may have files.
        with pa.memory_map(str(path)) as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            buffer = file.read_buffer()
        return np.frombuffer(buffer, dtype, math.prod(shape)).reshape(shape)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing from the store.") from error
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _check_length(folder: Path, name: str, column: Array, length: int) -> None:
    if column.shape != (length,):
        raise InputError(
            f"{folder / name}.npy has shape {column.shape}, but the other "
            f"columns of the store ask for ({length},)."
        )
