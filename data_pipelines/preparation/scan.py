"""Reads one part of a raw table and sends its rows to the shards of users."""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable, Split
from data_pipelines.stores.hashing import hash_ids

ROW = "__row"
"""Column of the row numbers, which keep the order of the raw files."""

SHARD = "__shard"
"""Column of the shard that a row belongs to."""

_REPORT = "report.json"


@dataclasses.dataclass(kw_only=True)
class ScanReport:
    """What became of the rows of a part.

    Args:
        num_read: Rows of the raw files.
        dropped: Rows that were left out, by reason.
    """

    num_read: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, num_read: int, dropped: dict[str, int]) -> None:
        """Adds the counts of more rows."""
        self.num_read += num_read
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """A raw table, and how its rows are spread over shards.

    Args:
        table: The table.
        key: Column of the user ids; `None` puts all rows into shard 0.
        num_shards: Number of shards.
    """

    table: RawTable
    key: str | None
    num_shards: int

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows that `rows` yields."""
        schema: pa.Schema = self.table.empty.schema
        return schema.append(pa.field(ROW, pa.int64())).append(
            pa.field(SHARD, pa.int32())
        )

    def rows(
        self, split: Split, report: ScanReport
    ) -> Generator[pa.RecordBatch]:
        """Yields the rows of a part; all of a batch are of one shard.

        Args:
            split: The part.
            report: Counts the rows.

        Raises:
            InputError: If a row is not as documented.
        """
        schema = self.schema
        with contextlib.closing(self.table.read(split)) as parts:
            for rows in parts:
                report.add(rows.num_read, rows.dropped)
                yield from self._by_shard(rows, schema)

    def _by_shard(
        self, rows: RawRows, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        if not len(rows.table):
            return
        shard = np.zeros(len(rows.table), np.int32)
        if self.key is not None:
            hashed = hash_ids(rows.table[self.key])
            shard = (hashed % np.uint64(self.num_shards)).astype(np.int32)
        # Sorted by shard first, since the writer is several times faster with
        # few long runs than when it picks rows itself (benchmarks/LOG.md).
        order = np.argsort(shard.astype(np.uint16), kind="stable")
        table = rows.table.append_column(ROW, pa.array(rows.row))
        table = table.append_column(SHARD, pa.array(shard))
        table = table.take(pa.array(order)).cast(schema)
        batch = table.combine_chunks().to_batches()[0]
        shard = shard[order]
        ends = np.searchsorted(shard, np.arange(self.num_shards + 1))
        for start, end in itertools.pairwise(ends):
            if end > start:
                yield batch.slice(start, end - start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartTask:
    """A part to be read and written by itself.

    Args:
        scan: The table.
        split: The part.
        folder: Where the rows go, by shard.
    """

    scan: Scan
    split: Split
    folder: Path


def write_part(task: PartTask) -> ScanReport:
    """Writes the rows of a part, one folder a shard, or nothing.

    A part that is there already is not read again.
    """
    done = task.folder / _REPORT
    if done.exists():
        return ScanReport(**json.loads(done.read_text("utf-8")))
    report = ScanReport()
    partial = task.folder.with_name(f".{task.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_by_shard(task.scan.rows(task.split, report), partial)
    (partial / _REPORT).write_text(json.dumps(dataclasses.asdict(report)))
    partial.rename(task.folder)
    return report


def _write_by_shard(batches: Generator[pa.RecordBatch], folder: Path) -> None:
    """Writes batches, each of one shard, to one file a shard.

    Not by `pyarrow.dataset.write_dataset`: its threads go on reading from the
    iterator when the disk is full, and a process that ends then hangs or
    aborts.
    """
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        writers: dict[int, pa.RecordBatchWriter] = {}
        for batch in batches:
            shard = batch[SHARD][0].as_py()
            batch = batch.drop_columns([SHARD])
            if shard not in writers:
                path = folder / f"{SHARD}={shard}" / "0.arrow"
                path.parent.mkdir()
                file = stack.enter_context(pa.OSFile(str(path), "wb"))
                writers[shard] = stack.enter_context(
                    pa.ipc.new_file(file, batch.schema, options=options)
                )
            writers[shard].write_batch(batch)


def shard_folders(folder: Path, shard: int) -> list[Path]:
    """Returns the folders under `folder` that hold rows of a shard."""
    return sorted(folder.glob(f"*/{SHARD}={shard}"))


def shard_files(folder: Path, shard: int) -> list[Path]:
    """Returns the files under `folder` that hold rows of a shard."""
    return [
        file
        for part in shard_folders(folder, shard)
        for file in sorted(part.iterdir())
        # Spark writes checksums beside its files.
        if not file.name.startswith((".", "_"))
    ]


def read_shard(
    folder: Path, shard: int, empty: pa.Table, columns: list[str] | None = None
) -> pa.Table:
    """Returns the rows of a shard in the order of the raw files.

    Args:
        folder: Folder of the table, which has one folder a part.
        shard: Which shard.
        empty: A table without rows, for a shard that has none.
        columns: Columns to read; `None` for all. Others than these are
            sorted by `ROW`, which the result keeps.
    """
    names = columns or [*empty.column_names, ROW]
    files = shard_files(folder, shard)
    tables = [
        pyarrow.dataset.dataset(
            [str(f) for f in files if f.suffix == suffix], format=file_format
        ).to_table(columns=names)
        for suffix, file_format in ((".arrow", "ipc"), (".parquet", "parquet"))
        if any(f.suffix == suffix for f in files)
    ]
    if not tables:
        table = empty.append_column(ROW, pa.array([], pa.int64()))
        return table.select(names)
    table = pa.concat_tables(tables)
    if ROW not in names:
        return table
    row = table[ROW].to_numpy()
    if len(row) and (row[1:] < row[:-1]).any():
        table = table.take(pa.array(np.argsort(row, kind="stable")))
    return table
