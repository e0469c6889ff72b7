"""What an update of a store reads of it, and what it leaves in the manifest."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_pipelines.preparation.earlier_rows import EarlierRows
from data_pipelines.preparation.scan import read_shard
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.stores.growing_store import count_all
from data_pipelines.stores.shard import Shard, longest_of
from data_pipelines.stores.store import Store, shard_name
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """First and last second of rows.

    Args:
        begin_time: Unix seconds of the first.
        end_time: One past those of the last.
        first_in: The table that has the first.
    """

    begin_time: int
    end_time: int
    first_in: str

    def check_after(self, store: Store) -> None:
        """Checks that all rows are later than those of a store.

        Raises:
            InputError: If one is not: histories and counts of the store would
                lack it.
        """
        end = store.updates[-1].end_time
        if self.begin_time < end:
            moment = store.schema.time_zone.moment
            raise InputError(
                f"--update: the new days overlap what {store.path} holds: "
                f"their {self.first_in} begin at {moment(self.begin_time)}, "
                f"and the store has rows up to {moment(end - 1)}. Leave out "
                "the rows that are not later."
            )


def span_of(parts: Path, dataset: RawDataset, num_shards: int) -> Span:
    """Returns the span of impressions and behaviors.

    Args:
        parts: Folder of the rows, by table, part and shard.
        dataset: The data set.
        num_shards: Into how many shards they are spread.

    Raises:
        InputError: If there is no row.
    """
    tables = [dataset.impressions]
    if isinstance(dataset.behaviors, RawTable):
        tables.append(dataset.behaviors)
    found = []
    for table in tables:
        for shard in range(num_shards):
            rows = read_shard(
                parts / table.name, shard, table.empty, columns=["time"]
            )
            if len(rows):
                limits = pc.min_max(rows["time"]).as_py()
                found.append((limits["min"], limits["max"], table.name))
    if not found:
        raise InputError("The raw files have no row.")
    begin, _, first_in = min(found)
    return Span(
        begin_time=begin,
        end_time=max(last for _, last, _ in found) + 1,
        first_in=first_in,
    )


def check_test(store: Store, test_time: int, rule: str) -> None:
    """Checks that the test begins after all that a store holds.

    Raises:
        InputError: If it does not: that is training.
    """
    end = store.updates[-1].end_time
    if test_time < end:
        raise InputError(
            f"The test, {rule}, begins at Unix second {test_time}, but what "
            f"{store.path} holds, up to {end - 1}, is training. Move it by "
            "--test_start."
        )


def earlier_rows(store: Store, shard: int) -> EarlierRows:
    """Returns what a store has of a shard."""
    folders = [store.path / update.folder for update in store.updates]
    name = shard_name(shard, int(store.manifest["num_shards"]))
    return EarlierRows(
        rows=tuple(folder / "rows" for folder in folders),
        shards=tuple(folder / name for folder in folders),
        begin_time=store.updates[-1].end_time,
    )


def earlier_splits(store: Store | None) -> list[Path]:
    """Returns the folders of all requests of a store; none without one."""
    if store is None:
        return []
    numbers = range(int(store.manifest["num_shards"]))
    return [
        folder / split
        for number in numbers
        for folder in earlier_rows(store, number).shards
        for split in ("train", "test")
    ]


def count_with(
    base: Store | None,
    added: Path,
    schema: DatasetSchema,
    num_shards: int,
    validation_time: int,
) -> dict[str, Any]:
    """Returns the numbers of rows of a store with an update.

    Args:
        base: The store before; `None` of its first days.
        added: Folder of the update.
        schema: Schema of the store.
        num_shards: Shards of an update.
        validation_time: Unix seconds at which the validation begins.
    """
    names = [shard_name(index, num_shards) for index in range(num_shards)]
    folders = [added]
    if base is not None:
        folders[:0] = [base.path / update.folder for update in base.updates]
    return count_all(
        [[Shard.open(f / name, schema) for name in names] for f in folders],
        validation_time,
    )


def manifest_with(store: Store, added: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the manifest of a store with an update.

    What is counted is added up; what says how a store was asked for stays.

    Args:
        store: The store before.
        added: The manifest of the days that are added, as if they were all,
            but for counts, updates and content.
    """
    before = store.manifest
    folder = added["updates"][-1]["folder"]
    source = "data_source"
    is_made = "synthetic sample" in (before[source], added[source])
    files = {f"{folder}/{k}": v for k, v in added["files"].items()}
    return {
        **added,
        **{name: before[name] for name in ("asked", "engine")},
        source: "synthetic sample" if is_made else added[source],
        "sources": [*before["sources"], *added["sources"]],
        "rows": {
            name: add_counts([before["rows"].get(name, {}), counts])
            for name, counts in added["rows"].items()
        },
        "dropped": add_counts([before["dropped"], added["dropped"]]),
        "incomplete": add_counts([before["incomplete"], added["incomplete"]]),
        "longest_sets": longest_of(
            [before["longest_sets"], added["longest_sets"]]
        ),
        "files": {**before["files"], **files},
    }


def add_counts(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Adds up the counts of each name."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
