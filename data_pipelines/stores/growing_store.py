"""Of what a store consists that days are added to.

    STORE/
      manifest.json         names the updates; replaced last, in one step
      rows/, values/, ids/  and all that any store has: the first preparation
      update-00001/         all of this again, of the days that were added

What is there is never written again. The shards of an update hold its own
requests, and all behaviors of their users; their ids are codes, numbers of
`values`, which the newest `ids` turn into ids. The vocabularies, statistics
and logged requests of the newest update are those of the store.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.id_sets import Column
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard, add_nested
from data_pipelines.stores.split_parts import count_rows
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

Array = npt.NDArray[Any]

_OPEN_SHARDS = 16
"""Shards that are held: those of many updates are too many files to map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """Days that were added at once; the first are those of the preparation.

    Args:
        folder: Within the store; an empty text for the store itself.
        begin_time: Unix seconds of its first row.
        end_time: One past those of its last.
        test_time: Unix seconds from which on its requests were the test, as
            long as it was the newest.
        content: Digest of its rows, which no later update changes.
        num_sources: How many of the store's raw files are its own.
    """

    folder: str
    begin_time: int
    end_time: int
    test_time: int
    content: str
    num_sources: int

    def to_dict(self) -> dict[str, Any]:
        """Returns values for JSON."""
        return dataclasses.asdict(self)


def update_folder(number: int) -> str:
    """Returns the name of an update's folder; 0 is the preparation."""
    return f"update-{number:05d}" if number else ""


def content_of(
    updates: Sequence[Update],
    counted: Sequence[Mapping[str, int]],
    split: Mapping[str, Any],
) -> str:
    """Returns the digest of a growing store.

    Args:
        updates: Its updates.
        counted: What its statistics add.
        split: What the manifest says of the split.
    """
    times = [split["validation_time"], split["test_time"]]
    parts = [[update.content for update in updates], list(counted), times]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_ids(folder: Path, schema: DatasetSchema) -> dict[str, Array]:
    """Returns the id of each code, by table; hashed tables have none.

    Args:
        folder: Folder of an update.
        schema: Schema of the store.

    Raises:
        InputError: If a file is absent or damaged.
    """
    found = {}
    for table in schema.tables:
        if table.kind == "hashed":
            continue
        path = folder / "ids" / f"{table.name}.npy"
        try:
            found[table.name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return found


def count_all(
    parts: Sequence[Sequence[Shard]], validation_time: int
) -> dict[str, Any]:
    """Returns the numbers of rows of a growing store, each user once.

    Args:
        parts: The shards of each update, the newest last.
        validation_time: Unix seconds at which the validation begins.
    """
    *earlier, newest = parts
    counts = [count_rows(shard, validation_time) for shard in newest]
    for shard in itertools.chain.from_iterable(earlier):
        for requests in shard.splits.values():
            view = dataclasses.replace(
                shard,
                behavior_time=shard.behavior_time[:0],
                splits={"train": requests, "test": _none_of(requests)},
            )
            counts.append(count_rows(view, validation_time))
    total = add_nested(counts)
    # A user is in the shard of the same number in every update.
    total["users"] = sum(
        len(np.unique(np.concatenate([shard.user_id for shard in shards])))
        for shards in zip(*parts, strict=True)
    )
    total["behaviors"] = sum(
        shard.num_behaviors for shard in itertools.chain(*parts)
    )
    return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardView:
    """Some requests of a shard's folder, as one shard of the whole store.

    What was the test of an update is training when there is a newer one.

    Args:
        folder: The folder of the shard.
        train: Which split of the folder is training.
        test: Which is the test; `None` for no request.
    """

    folder: Path
    train: str
    test: str | None

    def open(
        self, schema: DatasetSchema, ids: Mapping[str, Array] | None
    ) -> Shard:
        """Maps the columns.

        Args:
            schema: Schema of the store.
            ids: By table, the id of each code; `None` to read codes.
        """
        shard = Shard.open(self.folder, schema, ids)
        train = shard.splits[self.train]
        test = _none_of(train) if self.test is None else shard.splits[self.test]
        return dataclasses.replace(shard, splits={"train": train, "test": test})


def shard_views(
    path: Path, updates: Sequence[Update], names: Sequence[str]
) -> list[ShardView]:
    """Returns the shards of a growing store, the newest update's last.

    Args:
        path: Folder of the store.
        updates: Its updates.
        names: Names of an update's shards.
    """
    found = []
    for update in updates[:-1]:
        folders = [path / update.folder / name for name in names]
        found += [
            ShardView(folder=folder, train=split, test=None)
            for split in ("train", "test")
            for folder in folders
        ]
    newest = path / updates[-1].folder
    return found + [
        ShardView(folder=newest / name, train="train", test="test")
        for name in names
    ]


class OpenedShards(Sequence[Shard]):
    """Shards that are opened when they are asked for, a few at a time.

    Args:
        num_shards: How many there are.
        open_shard: Opens one.
    """

    def __init__(
        self, num_shards: int, open_shard: Callable[[int], Shard]
    ) -> None:
        self._num_shards = num_shards
        self._open = functools.lru_cache(_OPEN_SHARDS)(open_shard)

    def __len__(self) -> int:
        return self._num_shards

    @overload
    def __getitem__(self, index: int) -> Shard: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Shard]: ...

    def __getitem__(self, index: int | slice) -> Shard | Sequence[Shard]:
        """Returns a shard, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(self._num_shards)[index]]
        return self._open(range(self._num_shards)[index])


def _none_of(requests: RequestColumns) -> RequestColumns:
    def none(columns: Mapping[str, Column]) -> dict[str, Column]:
        return {name: column[:0] for name, column in columns.items()}

    return RequestColumns(
        user=requests.user[:0],
        users=none(requests.users),
        time=requests.time[:0],
        history_end=requests.history_end[:0],
        candidate_offset=np.zeros(1, np.int64),
        candidates=none(requests.candidates),
        label=requests.label[:0],
    )
