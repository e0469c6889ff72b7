"""Checks that a store is what its manifest says, and never leaks."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.candidate_statistics.stored_counts import (
    describe_counts,
    read_base,
)
from data_pipelines.preparation.encode_shard import count_ids, describe_files
from data_pipelines.preparation.sampled_requests import check_samples
from data_pipelines.stores.content_digest import digest, shard_content
from data_pipelines.stores.growing_store import (
    content_of,
    count_all,
    read_ids,
)
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.shard import (
    SPLITS,
    Shard,
    add_nested,
    longest_of,
    stored_ids,
)
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.store import Store, shard_name
from sparsectr.errors import InputError
from sparsectr.process.progress import Progress
from sparsectr.schema import LATEST_TIME, DatasetSchema, Prefix


def verify_store(path: Path) -> str:
    """Checks every byte and every row of a store.

    Returns:
        What was checked, in words.

    Raises:
        InputError: If a file is absent, altered or not in the manifest, if a
            history holds a behavior at or after its request's second or
            lacks one before, if an id is not in its table, if a count of the
            manifest is wrong, if statistics count other candidates, or if a
            request as it was logged does not give the ids of the store.
    """
    store = Store(path)
    manifest = store.manifest
    for key in ("files", "split", "counts", "out_of_vocabulary", "content"):
        if key not in manifest:
            raise InputError(f"{path}: the manifest has no `{key}`.")
    files = manifest["files"]
    found = {
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file()
    } - {"manifest.json"}
    for name in sorted(found ^ set(files)):
        problem = "is not in the manifest" if name in found else "is missing"
        raise InputError(f"{path / name} {problem}.")
    num_bytes = sum(file["bytes"] for file in files.values())
    with Progress("verifying", num_bytes, "B") as progress:
        for name, expected in files.items():
            actual = describe_files(path, [path / name])[name]
            if actual != expected:
                raise InputError(
                    f"{path / name} is not the file that was written: it has "
                    f"{actual['bytes']} bytes where {expected['bytes']} "
                    "belong, or its SHA-256 differs."
                )
            progress.advance(expected["bytes"])
    test_time = manifest["split"]["test_time"]
    validation_time = store.validation_time
    if not 0 < validation_time <= test_time:
        raise InputError(
            f"{path}: the validation time {validation_time} is not before the "
            f"test time {test_time}."
        )
    parts = _check_shards(store)
    contents = [[shard_content(shard) for shard in part] for part in parts]
    shards = list(itertools.chain.from_iterable(parts))
    statistics, counted = describe_counts(store.newest, store.schema)
    if store.updates:
        counts = count_all(parts, validation_time)
        content = content_of(store.updates, counted, manifest["split"])
        for update, own in zip(store.updates, contents, strict=True):
            if digest(own) != update.content:
                raise InputError(
                    f"{path}: update {update.folder!r} does not hold the rows "
                    "that it had."
                )
    else:
        counts = add_nested([count_rows(s, validation_time) for s in shards])
        content = digest([*contents[0], *counted], validation_time)
    _check_bases(store, counts)
    newest = store.shards[len(store.shards) - len(parts[-1]) :]
    for key, value in (
        ("counts", counts),
        ("longest_sets", longest_of(s.longest_sets() for s in shards)),
        ("out_of_vocabulary", add_nested([count_ids(s) for s in newest])),
        *([("statistics", statistics)] if statistics else []),
        ("content", content),
    ):
        if manifest.get(key) != value:
            raise InputError(
                f"{path}: `{key}` of the manifest is not what the store holds."
            )
    num_sampled = check_samples(store)
    total = manifest["counts"]
    return (
        f"{path}: {len(files)} files of {num_bytes:,} bytes are as written; "
        f"{total['behaviors']:,} behaviors of {total['users']:,} users and "
        f"{sum(total[split]['requests'] for split in SPLITS):,} requests are "
        f"in order, no history reaches its request; {num_sampled:,} of them "
        "are kept as they were logged and give the ids of the store; content "
        f"{manifest['content']}"
    )


def _check_shards(store: Store) -> list[list[Shard]]:
    """Checks the rows of all shards.

    Returns:
        The shards of each update, their ids as they are stored.
    """
    sizes = {table.name: table.size or 0 for table in store.schema.tables}
    num_shards = int(store.manifest["num_shards"])
    spans = [(store.path, 1, store.manifest["split"]["test_time"], LATEST_TIME)]
    if store.updates:
        spans = [
            (store.path / u.folder, u.begin_time, u.test_time, u.end_time)
            for u in store.updates
        ]
        ids = read_ids(store.newest, store.schema)
        sizes |= {name: len(own) for name, own in ids.items()}
    parts = []
    for folder, begin, test_time, end in spans:
        part = []
        for index in range(num_shards):
            name = folder / shard_name(index, num_shards)
            shard = Shard.open(name, store.schema)
            check = _Check(shard, store.schema, name, sizes)
            check.histories()
            check.requests("train", begin, test_time)
            check.requests("test", test_time, end)
            part.append(shard)
        parts.append(part)
    return parts


def _check_bases(store: Store, counts: Mapping[str, Any]) -> None:
    """Raises InputError if statistics count other candidates than there are."""
    for bucket in {s.bucket for s in store.schema.statistics}:
        base = read_base(store.newest, bucket)
        for what, column in (
            ("candidates", base.impressions),
            ("positives", base.clicks),
        ):
            if column.sum() != sum(counts[split][what] for split in SPLITS):
                raise InputError(
                    f"{store.path}: the statistics do not count the {what} "
                    "that the store holds."
                )


class _Check:
    """Checks of one shard.

    Args:
        shard: The shard.
        schema: Schema of the store.
        name: What messages call the shard.
        sizes: By table, how many ids there are; of codes, how many codes.
    """

    def __init__(
        self,
        shard: Shard,
        schema: DatasetSchema,
        name: Path,
        sizes: Mapping[str, int],
    ) -> None:
        self.shard = shard
        self.name = name
        self.schema = schema
        self.sizes = sizes

    def histories(self) -> None:
        """Raises InputError if users or behaviors contradict each other."""
        ids = np.asarray(self.shard.user_id)
        self._require((ids[1:] > ids[:-1]).all(), "user ids do not ascend")
        offset = np.asarray(self.shard.behavior_offset)
        time = np.asarray(self.shard.behavior_time)
        self._require(
            offset[0] == 0 and (offset[1:] >= offset[:-1]).all(),
            "histories overlap",
        )
        is_first = np.zeros(len(time) + 1, bool)
        is_first[offset] = True
        self._require(
            ((time[1:] >= time[:-1]) | is_first[1:-1]).all(),
            "behaviors are not in the order of their times",
        )
        self._require((time > 0).all(), "a behavior has no time")
        self._require_ids("behavior", self.shard.behaviors, "behaviors/")

    def requests(self, split: str, first_time: int, end_time: int) -> None:
        """Raises InputError if requests contradict histories or each other.

        Args:
            split: "train" or "test".
            first_time: Unix seconds before which the split has no request.
            end_time: Unix seconds from which on it has none.
        """
        requests = self.shard.splits[split]
        offset = np.asarray(self.shard.behavior_offset)
        time = np.asarray(self.shard.behavior_time)
        user, end = np.asarray(requests.user), np.asarray(requests.history_end)
        at = np.asarray(requests.time)
        self._require(
            ((user >= 0) & (user < self.shard.num_users)).all(),
            f"a request of {split} has an unknown user",
        )
        later = (user[1:] == user[:-1]) & (at[1:] >= at[:-1])
        self._require(
            ((user[1:] > user[:-1]) | later).all(),
            f"requests of {split} are not in the order of users and times",
        )
        self._require(
            ((at >= first_time) & (at < end_time)).all(),
            f"a request of {split} is on the wrong side of the split",
        )
        start, stop = offset[user], offset[user + 1]
        self._require(
            ((start <= end) & (end <= stop)).all(),
            f"a history of {split} is not its user's",
        )
        has_one, has_more = end > start, end < stop
        self._require(
            (time[end[has_one] - 1] < at[has_one]).all(),
            f"a history of {split} reaches its request",
        )
        self._require(
            (time[end[has_more]] >= at[has_more]).all(),
            f"a history of {split} lacks a behavior before its request",
        )
        first = np.asarray(requests.candidate_offset)
        self._require(
            first[0] == 0 and (first[1:] > first[:-1]).all(),
            f"a request of {split} has no candidate of its own",
        )
        self._require(
            (np.asarray(requests.label) <= 1).all(),
            f"a label of {split} is not 0 or 1",
        )
        self._require_ids("user", requests.users, f"{split}/user_")
        self._require_ids(
            "candidate", requests.candidates, f"{split}/candidate_"
        )

    def _require_ids(
        self,
        prefix: Prefix,
        columns: Mapping[str, Column],
        path: str,
    ) -> None:
        for field in stored_ids(self.schema, prefix):
            ids = columns[field.name]
            if isinstance(ids, IdSets):
                offset = ids.offset
                self._require(
                    offset[0] == 0 and (offset[1:] >= offset[:-1]).all(),
                    f"sets of {path}{field.name} overlap",
                )
                self._require(
                    ids.longest <= (field.max_values or 0),
                    f"a set of {path}{field.name} is longer than its schema "
                    "allows",
                )
                ids = ids.values
            ids = np.asarray(ids)
            size = self.sizes[field.table]
            self._require(
                ((ids >= 0) & (ids < size)).all(),
                f"an id of {path}{field.name} is not in its table",
            )

    def _require(self, condition: np.bool_ | bool, rule: str) -> None:
        if not condition:
            raise InputError(f"{self.name}: {rule}.")
