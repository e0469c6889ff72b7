"""Which files a schema file names."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare import Options, prepare
from tests.data_pipelines.own_shop import (
    SCHEMA,
    TABLES,
    TRAINING,
    make,
    replaced,
    training,
)


@pytest.mark.parametrize(
    "files",
    [
        '"[log]"',
        '["[log]", "[log]/a.parquet"]',
        '["*log*/*.parquet", "*/day=?"]',
        '["[log]/a.parquet", "[log]/day=1/b.parquet", "[log]/z.parquet"]',
    ],
)
def test_files(tmp_path: pathlib.Path, files: str) -> None:
    whole = pa.table(TABLES["events"])
    folder = tmp_path / "raw-store" / "[log]"
    (folder / "day=1").mkdir(parents=True)
    pq.write_table(whole.slice(0, 2), folder / "a.parquet")
    pq.write_table(whole.slice(2, 2), folder / "day=1" / "b.parquet")
    pq.write_table(whole.slice(4), folder / "z.parquet")
    for name in ("_hidden.parquet", ".a.parquet", "_SUCCESS", "a.crc"):
        (folder / name).write_text("no Parquet file")
    store = make(tmp_path, replaced('"events.parquet"', files))
    assert training(store) == TRAINING
    names = [source["file"] for source in store.manifest["sources"]]
    assert sorted(names[1:4]) == ["a.parquet", "b.parquet", "z.parquet"]
    assert len(names) == 6


def test_the_whole_folder(tmp_path: pathlib.Path) -> None:
    raw_dir = tmp_path / "raw-store"
    raw_dir.mkdir()
    columns = {**TABLES["shown"], "kind": [0] * 8}
    pq.write_table(pa.table(columns), raw_dir / "all.parquet")
    begin, end = SCHEMA.index("[behaviors]"), SCHEMA.index("[user_fields]")
    schema = 'behaviors = "impressions"' + SCHEMA[:begin] + SCHEMA[end:]
    for old, new in (
        ('"shown.parquet"', '"."'),
        ('item = "sku"\n', ""),
        ('country = "users.country"\n', ""),
        ('brand = "items.brand"\n', ""),
        ('brand = "items.brand"\n', ""),
        ('"behaviors.sku"', '"impressions.sku"'),
        ('price = { column = "items.price", transform = "log1p" }\n', ""),
    ):
        assert old in schema
        schema = schema.replace(old, new, 1)
    (tmp_path / "shop.toml").write_text(schema)
    store = prepare(
        "parquet",
        raw_dir,
        tmp_path / "store",
        options=Options(schema_file=tmp_path / "shop.toml"),
    )
    assert [r.time for r in training(store)] == [r.time for r in TRAINING]
