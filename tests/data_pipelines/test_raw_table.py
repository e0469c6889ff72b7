import dataclasses
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable, Reader, keep
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError
from tests.data_pipelines.raw_files import packed

COLUMNS = {"id": pa.int64(), "name": pa.string()}
NAMES = [["a", "bb", "ccc", "d"], [], ["e"], ["ff", "g", "h"]]
"""Names in each file."""


def _rows() -> list[tuple[int, int, str]]:
    return [
        (file, place, name)
        for file, names in enumerate(NAMES)
        for place, name in enumerate(names)
    ]


def _table(folder: Path, kind: str, convert: object = keep) -> RawTable:
    sources = []
    reader: Reader = CsvReader(columns=COLUMNS)
    for file, names in enumerate(NAMES):
        path = folder / f"file{file}.{kind}"
        text = "".join(f"{10 * file + n},{v}\n" for n, v in enumerate(names))
        if kind == "parquet":
            reader = ParquetReader(columns=COLUMNS)
            ids = pa.array([10 * file + n for n in range(len(names))], "int64")
            table = pa.table({"id": ids, "name": pa.array(names, "string")})
            pq.write_table(table, path, row_group_size=2)
        elif kind == "txt":
            reader = CsvReader(
                columns=COLUMNS,
                file_format=CsvFormat(column_names=("id", "name")),
            )
            path.write_text(text)
        else:
            suffix = kind.removeprefix("csv")
            path.write_bytes(packed(f"id,name\n{text}".encode(), suffix))
        sources.append(SourceFile(path=path))
    return RawTable(
        name="rows",
        sources=tuple(sources),
        reader=reader,
        convert=convert,  # type: ignore[arg-type]
    )


KINDS = ["csv", "csv.gz", "csv.zip", "txt", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("range_bytes", [1, 2, 5, 9, 12, 1000])
def test_where_tells_file_and_line_of_rows_of_any_split(
    tmp_path: Path, kind: str, range_bytes: int
) -> None:
    table = _table(tmp_path, kind)
    found, numbers = [], []
    for split in table.splits(range_bytes):
        for rows in table.read(split):
            numbers += rows.row.tolist()
            found += rows.table["name"].to_pylist()
    assert found == [name for *_, name in _rows()]
    assert numbers == sorted(set(numbers))
    noun = "row" if kind == "parquet" else "line"
    first = 1 if kind in ("parquet", "txt") else 2
    assert [table.where(number, range_bytes) for number in numbers] == [
        f"{table.sources[file].path}, {noun} {place + first}"
        for file, place, _ in _rows()
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_all_rows(tmp_path: Path, kind: str) -> None:
    table = _table(tmp_path, kind)
    expected = {
        "id": [10 * file + place for file, place, _ in _rows()],
        "name": [name for *_, name in _rows()],
    }
    assert table.read_all().to_pydict() == expected
    assert table.read_all(3).to_pydict() == expected
    assert table.empty.schema == pa.schema(list(COLUMNS.items()))
    assert table.empty.num_rows == 0


def _convert(rows: RawRows) -> None:
    """Drops texts of two letters, refuses those of three, renames."""
    length = pc.utf8_length(rows.table["name"])
    rows.drop_unless(pc.not_equal(length, 2), "two letters")
    length = pc.utf8_length(rows.table["name"])
    rows.require(pc.less(length, 3), "three letters", "name")
    rows.table = rows.table.rename_columns(["key", "text"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("range_bytes", [1, 7, 1000])
def test_conversion(tmp_path: Path, kind: str, range_bytes: int) -> None:
    table = _table(tmp_path, kind, _convert)
    assert table.empty.column_names == ["key", "text"]
    # The first file has one; a row before it is dropped.
    line = 3 if kind in ("parquet", "txt") else 4
    message = f"{line}: three letters. Received: name='ccc'"
    with pytest.raises(InputError, match=re.escape(message)):
        table.read_all(range_bytes)
    others = dataclasses.replace(table, sources=table.sources[1:])
    rows = others.read_all(range_bytes)
    assert rows.to_pydict() == {"key": [20, 31, 32], "text": ["e", "g", "h"]}
    numbers = [
        number
        for split in others.splits(range_bytes)
        for rows in others.read(split)
        for number in rows.row.tolist()
    ]
    line = 2 if kind in ("parquet", "txt") else 3
    where = others.where(numbers[1], range_bytes)
    assert where.startswith(str(others.sources[2].path))
    assert where.endswith(f" {line}")
