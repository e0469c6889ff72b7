"""A prepared data set on disk. `data_pipelines/README.md` has the layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.stores.content_digest import digest, shard_content
from data_pipelines.stores.growing_store import (
    OpenedShards,
    Update,
    read_ids,
    shard_views,
)
from data_pipelines.stores.new_folder import new_folder
from data_pipelines.stores.shard import Shard, add_nested, longest_of
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.vocabulary import Vocabulary
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

FORMAT = "sparsectr-store"
FORMAT_VERSION = 4

GROWING_VERSION = 5
"""Of a store that days can be added to; see `growing_store.py`."""

_MANIFEST = "manifest.json"

SAMPLED_REQUESTS = "sampled_requests.parquet"
"""What `data_pipelines/preparation/sampled_requests.py` describes."""


class Store:
    """A store opened for reading; its columns are memory-mapped.

    Args:
        path: Folder of the store.
        leave_out: Fields to do without; see `DatasetSchema.without`.

    Attributes:
        path: Folder of the store.
        manifest: What `manifest.json` says.
        schema: Schema with the size of every table.
        longest_sets: The most ids of a set, by the name of its tensor.
        updates: The preparation and what was added since, of a store that
            days can be added to; none of any other.
        newest: Folder of the newest update, or of the store: it has the
            vocabularies, statistics and logged requests.
        shards: The shards, in order. Those of a store that days were added to
            are several for a user, and are opened when they are asked for.
        sampled_requests: The Parquet table of a few requests as they were
            logged; `None` if the preparation left them out.

    Raises:
        InputError: If there is no store, or it is damaged or of another
            version, or has no field that is to be left out.
    """

    path: Path
    manifest: Mapping[str, Any]
    schema: DatasetSchema
    longest_sets: Mapping[str, int]
    updates: tuple[Update, ...]
    newest: Path
    shards: Sequence[Shard]
    sampled_requests: Path | None

    def __init__(self, path: Path | str, leave_out: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        try:
            self.schema = DatasetSchema.from_dict(self.manifest["schema"])
            num_shards = int(self.manifest["num_shards"])
            self.longest_sets = self.manifest["longest_sets"]
            self.updates = tuple(
                Update(**each) for each in self.manifest.get("updates", ())
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path / _MANIFEST} is damaged: {error}"
            ) from error
        try:
            self.schema = self.schema.without(leave_out)
        except ValueError as error:
            raise InputError(f"{self.path}: {error}") from error
        names = [shard_name(index, num_shards) for index in range(num_shards)]
        self.newest = self.path
        self._ids: dict[str, Any] | None = None
        self._folders = [self.path / name for name in names]
        if self.updates:
            self.newest = self.path / self.updates[-1].folder
            self._ids = read_ids(self.newest, self.schema)
            self._views = shard_views(self.path, self.updates, names)
            self._folders = [view.folder for view in self._views]
        self.shards = (
            OpenedShards(len(self._folders), self.open_shard)
            if len(self.updates) > 1
            else tuple(map(self.open_shard, range(num_shards)))
        )
        samples = self.newest / SAMPLED_REQUESTS
        self.sampled_requests = samples if samples.exists() else None

    def open_shard(self, index: int) -> Shard:
        """Maps a shard anew.

        Raises:
            InputError: If it is damaged.
        """
        if self.updates:
            return self._views[index].open(self.schema, self._ids)
        return Shard.open(self._folders[index], self.schema)

    def shard_folder(self, index: int) -> Path:
        """Returns the folder of a shard's columns."""
        return self._folders[index]

    def num_requests(self, split: str) -> int:
        """Returns the number of requests of "train" or "test"."""
        return sum(shard.splits[split].num_requests for shard in self.shards)

    @property
    def validation_time(self) -> int:
        """Unix seconds; training requests from then on are the validation.

        Raises:
            InputError: If the store has none.
        """
        time = self.manifest.get("split", {}).get("validation_time")
        if time is None:
            raise InputError(
                f"{self.path} has no validation time. Prepare it again."
            )
        return int(time)

    def vocabulary(self, table: str) -> Vocabulary:
        """Returns the vocabulary that turns raw values into ids of `table`."""
        spec = self.schema.table(table)
        if spec.kind == "hashed":
            return Vocabulary(spec)
        path = self.vocabulary_file(table)
        try:
            return Vocabulary(spec, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error}") from error

    def vocabulary_file(self, table: str) -> Path:
        """Returns the file of a vocabulary's values."""
        return self.newest / "vocabularies" / f"{table}.json"

    def vocabularies(self) -> dict[str, Vocabulary]:
        """Returns the vocabulary of every table, by its name."""
        names = [table.name for table in self.schema.tables]
        return {name: self.vocabulary(name) for name in names}


def write_store(
    path: Path,
    *,
    schema: DatasetSchema,
    vocabularies: Sequence[Vocabulary],
    shards: Sequence[Shard],
    details: Mapping[str, Any],
) -> None:
    """Writes a store whose shards are in memory, or nothing at all.

    Args:
        path: Folder of the store. It must not exist, or be empty.
        schema: Schema whose tables all have their size.
        vocabularies: One for each table that is not hashed.
        shards: Users in the same shard as all their rows.
        details: More entries of the manifest.

    Raises:
        InputError: If there is something at `path` already.
        OSError: If the disk is full or not writable.
    """
    time = details.get("split", {}).get("validation_time")
    manifest = manifest_of(
        schema=schema,
        num_shards=len(shards),
        counts=add_nested(
            [
                shard.counts() if time is None else count_rows(shard, time)
                for shard in shards
            ]
        ),
        longest_sets=longest_of(shard.longest_sets() for shard in shards),
        details={
            "content": digest([shard_content(shard) for shard in shards]),
            **details,
        },
    )
    with new_folder(path) as folder:
        (folder / "vocabularies").mkdir()
        for vocabulary in vocabularies:
            if vocabulary.values is not None:
                name = f"{vocabulary.table.name}.json"
                (folder / "vocabularies" / name).write_text(
                    json.dumps(vocabulary.values.to_pylist()) + "\n",
                    "utf-8",
                )
        for index, shard in enumerate(shards):
            shard.save(folder / shard_name(index, len(shards)))
        (folder / _MANIFEST).write_text(
            json.dumps(manifest, indent=2) + "\n", "utf-8"
        )


def manifest_of(
    *,
    schema: DatasetSchema,
    num_shards: int,
    counts: Mapping[str, Any],
    longest_sets: Mapping[str, int],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the content of `manifest.json`.

    Args:
        schema: Schema whose tables all have their size.
        num_shards: Number of shards.
        counts: Numbers of rows.
        longest_sets: The most ids of a set, by the name of its tensor.
        details: More entries.
    """
    if not schema.is_resolved:
        raise ValueError("`schema` has a table without a size.")
    return {
        "format": FORMAT,
        "version": GROWING_VERSION if "updates" in details else FORMAT_VERSION,
        **details,
        "counts": counts,
        "longest_sets": longest_sets,
        "num_shards": num_shards,
        "schema": json.loads(schema.to_json()),
    }


def shard_name(index: int, num_shards: int) -> str:
    """Returns the name of a shard's folder."""
    return f"shard-{index:05d}-of-{num_shards:05d}"


def _read_manifest(path: Path) -> Mapping[str, Any]:
    file = path / _MANIFEST
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is not a store: no {_MANIFEST}.") from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{file} does not describe a store.")
    if manifest.get("version") not in (FORMAT_VERSION, GROWING_VERSION):
        raise InputError(
            f"{file} has version {manifest.get('version')}; this code reads "
            f"versions {FORMAT_VERSION} and {GROWING_VERSION}. Prepare the "
            "data again."
        )
    return manifest
