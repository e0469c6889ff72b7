"""All rows of some users as columns, in memory or memory-mapped."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.request_columns import RequestColumns
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

Array = npt.NDArray[Any]

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Users, their histories and their requests.

    Args:
        user_id: int64 `[num_users]`, raw user ids, ascending.
        users: One column of ids a user field, `[num_users]`.
        behavior_offset: int64 `[num_users + 1]`; the history of user `u` is
            behavior rows `behavior_offset[u]` to `behavior_offset[u + 1]`.
        behavior_time: int64 `[num_behaviors]`, Unix seconds, never
            descending within a user.
        behaviors: One column of ids a behavior field, `[num_behaviors]`.
        splits: The requests of "train" and of "test".
    """

    user_id: Array
    users: Mapping[str, Array]
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

    def save(self, folder: Path) -> None:
        """Writes every column as a `.npy` file under `folder`."""
        for name, column in self._files().items():
            path = folder / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, column, allow_pickle=False)

    def _files(self) -> dict[str, Array]:
        files = {
            "users/id": self.user_id,
            "users/behavior_offset": self.behavior_offset,
            "behaviors/time": self.behavior_time,
        }
        files |= {f"users/{k}": v for k, v in self.users.items()}
        files |= {f"behaviors/{k}": v for k, v in self.behaviors.items()}
        for split, requests in self.splits.items():
            files[f"{split}/user"] = requests.user
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
            users={
                field.name: column(f"users/{field.name}", len(user_id))
                for field in schema.user_fields
            },
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
        column: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing from the store.") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return column


def _check_length(folder: Path, name: str, column: Array, length: int) -> None:
    if column.shape != (length,):
        raise InputError(
            f"{folder / name}.npy has shape {column.shape}, but the other "
            f"columns of the store ask for ({length},)."
        )
