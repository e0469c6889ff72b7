import resource
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_pipelines.preparation.scan import (
    ROW,
    PartTask,
    Scan,
    ScanReport,
    read_shard,
    shard_folders,
    write_part,
)
from data_pipelines.prepare import MAX_SHARDS
from data_pipelines.raw.csv_reader import CsvReader
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile, SourceStream
from data_pipelines.stores.hashing import hash_ids
from sparsectr.errors import InputError

NUM_SHARDS = 5


def _convert(rows: RawRows) -> None:
    rows.require(pc.greater(rows.table["place"], -1), "is negative", "place")
    rows.drop_unless(pc.not_equal(rows.table["user_id"], 13), "unlucky rows")


@pytest.fixture
def table(tmp_path: Path) -> RawTable:
    """Two files of 100 rows each; a row's place is among those of both."""
    users = np.random.default_rng(5).integers(0, 20, 200)
    sources = []
    for number, name in enumerate(("b.csv", "a.csv")):
        places = range(100 * number, 100 * number + 100)
        lines = [f"{place},{users[place]}\n" for place in places]
        path = tmp_path / name
        path.write_text("place,user_id\n" + "".join(lines))
        sources.append(SourceFile(path=path))
    return RawTable(
        name="impressions",
        sources=tuple(sources),
        reader=CsvReader(columns={"place": pa.int64(), "user_id": pa.int64()}),
        convert=_convert,
    )


def _write(table: RawTable, folder: Path, range_bytes: int) -> list[ScanReport]:
    made = Scan(table=table, key="user_id", num_shards=NUM_SHARDS)
    return [
        write_part(PartTask(scan=made, split=split, folder=folder / f"{n:03d}"))
        for n, split in enumerate(table.splits(range_bytes))
    ]


@pytest.mark.parametrize("range_bytes", [3, 97, 1 << 20])
def test_rows_keep_their_order_whatever_the_parts(
    table: RawTable, tmp_path: Path, range_bytes: int
) -> None:
    reports = _write(table, tmp_path / "parts", range_bytes)
    rows = table.read_all()
    num_unlucky = 200 - len(rows)
    assert num_unlucky > 5
    assert sum(report.num_read for report in reports) == 200
    assert sum(r.dropped.get("unlucky rows", 0) for r in reports) == num_unlucky
    hashed = hash_ids(rows["user_id"]) % np.uint64(NUM_SHARDS)
    for shard in range(NUM_SHARDS):
        expected = rows.filter(pa.array(hashed == shard))
        found = read_shard(tmp_path / "parts", shard, table.empty)
        assert found.select(["place", "user_id"]) == expected
        assert (np.diff(found[ROW].to_numpy()) > 0).all()
        where = [
            table.where(row, range_bytes) for row in found[ROW].to_pylist()[:3]
        ]
        for text, place in zip(
            where, expected["place"].to_pylist(), strict=False
        ):
            name, line = ("b.csv", "a.csv")[place // 100], place % 100 + 2
            assert text == f"{tmp_path / name}, line {line}"


def test_columns_of_a_shard(table: RawTable, tmp_path: Path) -> None:
    _write(table, tmp_path / "parts", 97)
    everything = read_shard(tmp_path / "parts", 2, table.empty)
    some = read_shard(tmp_path / "parts", 2, table.empty, columns=["user_id"])
    assert some.column_names == ["user_id"]
    assert sorted(some["user_id"].to_pylist()) == sorted(
        everything["user_id"].to_pylist()
    )
    for columns in (None, ["place", ROW], ["place"]):
        nothing = read_shard(tmp_path / "absent", 2, table.empty, columns)
        assert nothing.column_names == (columns or ["place", "user_id", ROW])
        assert nothing.num_rows == 0


def test_rows_are_sorted_whatever_the_names_of_parts(
    table: RawTable, tmp_path: Path
) -> None:
    _write(table, tmp_path / "parts", 97)
    expected = read_shard(tmp_path / "parts", 2, table.empty)
    folders = sorted((tmp_path / "parts").iterdir())
    for number, folder in enumerate(reversed(folders)):
        folder.rename(folder.with_name(f"other-{number:03d}"))
    assert read_shard(tmp_path / "parts", 2, table.empty) == expected


def test_a_table_of_all_shards(table: RawTable, tmp_path: Path) -> None:
    made = Scan(table=table, key=None, num_shards=1)
    folder = tmp_path / "parts" / "0"
    (split, _) = table.splits(1 << 20)
    write_part(PartTask(scan=made, split=split, folder=folder))
    assert [f.name for f in shard_folders(folder.parent, 0)] == ["__shard=0"]
    found = read_shard(folder.parent, 0, table.empty)
    assert found["place"] == table.read_all()["place"][: len(found)]
    assert len(found) > 80


def test_a_part_is_written_once(
    table: RawTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _write(table, tmp_path / "parts", 500)

    def fail(self: RawTable, split: object) -> Generator[RawRows]:
        raise AssertionError("read again")

    monkeypatch.setattr(RawTable, "read", fail)
    assert _write(table, tmp_path / "parts", 500) == first


def test_a_part_is_written_whole(
    table: RawTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Scan(table=table, key="user_id", num_shards=NUM_SHARDS)
    split = table.splits(1 << 20)[0]
    task = PartTask(scan=made, split=split, folder=tmp_path / "parts" / "0")
    path = table.sources[0].path
    good = path.read_text()
    path.write_text(good + "-1,3\n")
    with pytest.raises(InputError, match=r"b.csv, line 102: is negative"):
        write_part(task)
    assert not task.folder.exists()
    path.write_text(good)
    # What the failed one has left does no harm.
    assert write_part(task).num_read == 100
    assert [p.name for p in task.folder.parent.iterdir()] == ["0"]


def test_as_many_shards_as_there_may_be(
    table: RawTable, tmp_path: Path
) -> None:
    path = table.sources[0].path
    lines = [f"{number},{number}\n" for number in range(20_000)]
    path.write_text("place,user_id\n" + "".join(lines))
    made = Scan(table=table, key="user_id", num_shards=MAX_SHARDS)
    split = table.splits(1 << 20)[0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What Linux gives a process that asks for no more.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        write_part(
            PartTask(scan=made, split=split, folder=tmp_path / "parts" / "0")
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    shards = [
        read_shard(tmp_path / "parts", shard, table.empty)
        for shard in (0, MAX_SHARDS - 1)
    ]
    assert all(len(shard) > 5 for shard in shards)


def test_reports_add_up() -> None:
    report = ScanReport()
    report.add(3, {"a": 1})
    report.add(4, {"a": 2, "b": 0})
    assert report == ScanReport(num_read=7, dropped={"a": 3, "b": 0})


def test_nothing_reads_on_when_the_disk_is_full(
    table: RawTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that ends while another thread reads hangs or aborts.
    begun, ended = [], []
    readinto = SourceStream.readinto

    def slow(stream: SourceStream, buffer: Any) -> int:
        begun.append(stream)
        time.sleep(0.05)
        size = readinto(stream, buffer)
        ended.append(stream)
        return size

    monkeypatch.setattr(SourceStream, "readinto", slow)
    monkeypatch.setattr("data_pipelines.raw.csv_reader._BLOCK_BYTES", 1 << 16)
    path = table.sources[0].path
    random = np.random.default_rng(3)
    users = random.integers(0, 1 << 60, 200_000).tolist()
    lines = [f"1,{user}\n" for user in users]
    path.write_text("place,user_id\n" + "".join(lines))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            _write(table, tmp_path / "parts", 1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(begun) == len(ended)
    num_read = len(begun)
    time.sleep(0.2)
    assert len(begun) == num_read
    assert not (tmp_path / "parts" / "000").exists()
