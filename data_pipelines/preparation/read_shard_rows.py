"""The raw rows of one shard, and of what they refer to."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from data_pipelines.preparation.earlier_rows import (
    EarlierRows,
    newest_of_each,
)
from data_pipelines.preparation.listwise import RawShard
from data_pipelines.preparation.scan import ROW, read_shard, shard_files
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_table import RawTable
from sparsectr.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What is needed to build a shard.

    Args:
        dataset: The data set.
        parts: Folder of the rows, by table, part and shard.
        shard: Which shard.
        test_time: Unix seconds; requests from then on are for test.
        folder: Where the coded shard goes.
        range_bytes: Bytes of a part, to find the line of a bad row.
        sample_requests: Requests that the store keeps as they were logged.
        keeps_rows: Whether days can be added later: what histories are made
            of is not deleted, and values are also counted in the test.
        earlier: What is there of the days before, of an update.
    """

    dataset: RawDataset
    parts: Path
    shard: int
    test_time: int
    folder: Path
    range_bytes: int
    sample_requests: int
    keeps_rows: bool = False
    earlier: EarlierRows | None = None


def read_raw_shard(task: ShardTask) -> RawShard:
    """Reads the rows that a shard is made of.

    Raises:
        InputError: If an id repeats among users.
    """
    if task.earlier is not None:
        return _read_all_days(task, task.earlier)
    dataset = task.dataset

    def read(table: RawTable, shard: int = task.shard) -> pa.Table:
        return read_shard(task.parts / table.name, shard, table.empty)

    impressions = read(dataset.impressions)
    users = items = behaviors = None
    if isinstance(dataset.behaviors, RawTable):
        behaviors = read(dataset.behaviors)
    if dataset.users is not None:
        users = read(dataset.users)
        check_unique(dataset.users, users, "user_id", task.range_bytes)
    if dataset.items is not None:
        keys = [impressions[dataset.item_key]]
        if behaviors is not None and dataset.item_key in behaviors.column_names:
            keys.append(behaviors[dataset.item_key])
        chunks = [chunk for column in keys for chunk in column.chunks]
        items = _read_items(
            task, pa.chunked_array(chunks, keys[0].type).unique()
        )
    return RawShard(
        impressions=impressions, behaviors=behaviors, users=users, items=items
    )


def _read_all_days(task: ShardTask, earlier: EarlierRows) -> RawShard:
    """Reads the rows of an update, and what they need of the days before."""
    dataset = task.dataset

    def read(table: RawTable) -> pa.Table:
        return read_shard(task.parts / table.name, task.shard, table.empty)

    impressions = read(dataset.impressions)
    active = pc.unique(impressions["user_id"])
    known = earlier.known_users(active.type)
    shown = behaviors = users = items = None
    idle = known[:0]
    if isinstance(dataset.behaviors, RawTable):
        own = read(dataset.behaviors)
        new = pc.unique(own["user_id"])
        is_idle = pc.and_not(
            pc.is_in(new, value_set=known), pc.is_in(new, value_set=active)
        )
        idle = new.filter(is_idle)
        before = earlier.read(dataset.behaviors, task.shard, "user_id", active)
        behaviors = pa.concat_tables([before, own])
    else:
        shown = earlier.read(dataset.impressions, task.shard, "user_id", active)
    if dataset.users is not None:
        own = read(dataset.users)
        check_unique(dataset.users, own, "user_id", task.range_bytes)
        before = earlier.read(dataset.users, task.shard, "user_id", active)
        own = own.filter(pc.is_in(own["user_id"], value_set=active))
        users = newest_of_each([before, own], "user_id")
    if dataset.items is not None:
        key = dataset.item_key
        tables = (impressions, shown, behaviors)
        found = [
            t[key] for t in tables if t is not None and key in t.schema.names
        ]
        chunks = [chunk for column in found for chunk in column.chunks]
        keys = pa.chunked_array(chunks, found[0].type).unique()
        before = earlier.read(dataset.items, 0, key, keys)
        items = newest_of_each([before, _read_items(task, keys)], key)
    return RawShard(
        impressions=impressions,
        behaviors=behaviors,
        users=users,
        items=items,
        earlier_impressions=shown,
        idle_users=idle,
    )


def _read_items(task: ShardTask, keys: pa.Array) -> pa.Table:
    """Reads the items with certain keys; there may be many others."""
    dataset = task.dataset
    if dataset.items is None:
        raise ValueError("There are no items.")
    files = list(map(str, shard_files(task.parts / dataset.items.name, 0)))
    empty = dataset.items.empty
    if not files:
        return empty.append_column(ROW, pa.array([], pa.int64()))
    file_format = "ipc" if files[0].endswith(".arrow") else "parquet"
    return pyarrow.dataset.dataset(files, format=file_format).to_table(
        columns=[*empty.column_names, ROW],
        filter=pc.field(dataset.item_key).isin(keys),
    )


def check_unique(
    table: RawTable, rows: pa.Table, key: str, range_bytes: int
) -> None:
    """Checks that no value of `key` repeats.

    Args:
        table: The raw table that the rows are of.
        rows: The rows, with `key` and `ROW`, in the order of the files.
        key: Name of the column.
        range_bytes: Bytes of a part, to find the line of a row.

    Raises:
        InputError: If one does; the message names the later row.
    """
    keys = rows[key]
    if len(pc.unique(keys)) == len(keys):
        return
    first = pc.index_in(keys, value_set=keys).to_numpy()
    place = int(np.flatnonzero(first != np.arange(len(keys)))[0])
    where = table.where(rows[ROW][place].as_py(), range_bytes)
    raise InputError(
        f"{where}: repeated id. Received: {key}={keys[place].as_py()!r}"
    )
