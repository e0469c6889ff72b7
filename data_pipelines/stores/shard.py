"""All rows of some users as columns, in memory or memory-mapped."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipelines.stores.request_columns import RequestColumns
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

Array = npt.NDArray[Any]

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Users, their histories and their requests.

    Args:
        user_id: int64 or bytes `[num_users]`, raw user ids, ascending.
        behavior_offset: int64 `[num_users + 1]`; the history of user `u` is
            behavior rows `behavior_offset[u]` to `behavior_offset[u + 1]`.
        behavior_time: uint32 `[num_behaviors]`, Unix seconds, never
            descending within a user.
        behaviors: One column of ids a behavior field, `[num_behaviors]`.
        splits: The requests of "train" and of "test".
    """

    user_id: Array
    behavior_offset: Array
    behavior_time: Array
    behaviors: Mapping[str, Array]
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

    def save(self, folder: Path) -> None:
        """Writes every column as a `.npy` file under `folder`."""
        for name, column in self.files().items():
            path = folder / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, column, allow_pickle=False)

    def files(self) -> dict[str, Array]:
        """Returns every column by the name of its file, without `.npy`."""
        files = {
            "users/id": self.user_id,
            "users/behavior_offset": self.behavior_offset,
            "behaviors/time": self.behavior_time,
        }
        files |= {f"behaviors/{k}": v for k, v in self.behaviors.items()}
        for split, requests in self.splits.items():
            files[f"{split}/user"] = requests.user
            for name, column in requests.users.items():
                files[f"{split}/user_{name}"] = column
            files[f"{split}/time"] = requests.time
            files[f"{split}/history_end"] = requests.history_end
            files[f"{split}/candidate_offset"] = requests.candidate_offset
            files[f"{split}/candidate_label"] = requests.label
            for name, column in requests.candidates.items():
                files[f"{split}/candidate_{name}"] = column
        return files

    @classmethod
    def open(cls, folder: Path, schema: DatasetSchema) -> "Shard":
        """Memory-maps the columns under `folder`.

        Raises:
            InputError: If a file is absent or damaged, or its length does
                not fit the others.
        """
        user_id = _open_column(folder, "users/id")
        offset = _open_column(folder, "users/behavior_offset")
        _check_length(folder, "users/behavior_offset", offset, len(user_id) + 1)
        num_behaviors = int(offset[-1])

        def column(name: str, length: int) -> Array:
            values = _open_column(folder, name)
            _check_length(folder, name, values, length)
            return values

        return cls(
            user_id=user_id,
            behavior_offset=offset,
            behavior_time=column("behaviors/time", num_behaviors),
            behaviors={
                field.name: column(f"behaviors/{field.name}", num_behaviors)
                for field in schema.behavior_fields
            },
            splits={
                split: _open_requests(folder, split, schema) for split in SPLITS
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


def _open_requests(
    folder: Path, split: str, schema: DatasetSchema
) -> RequestColumns:
    user = _open_column(folder, f"{split}/user")
    offset = _open_column(folder, f"{split}/candidate_offset")
    _check_length(folder, f"{split}/candidate_offset", offset, len(user) + 1)

    def column(name: str, length: int) -> Array:
        values = _open_column(folder, f"{split}/{name}")
        _check_length(folder, f"{split}/{name}", values, length)
        return values

    num_candidates = int(offset[-1])
    names = [field.name for field in schema.candidate_fields]
    names += [field.name for field in schema.candidate_dense_fields]
    return RequestColumns(
        user=user,
        users={
            field.name: column(f"user_{field.name}", len(user))
            for field in schema.user_fields
        },
        time=column("time", len(user)),
        history_end=column("history_end", len(user)),
        candidate_offset=offset,
        candidates={
            name: column(f"candidate_{name}", num_candidates) for name in names
        },
        label=column("candidate_label", num_candidates),
    )


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
