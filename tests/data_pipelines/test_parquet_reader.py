import datetime
import decimal
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.raw import parquet_reader
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError

INT, FLOAT, TEXT = pa.int64(), pa.float32(), pa.string()
READER = ParquetReader(
    columns={"id": INT, "price": FLOAT, "name": TEXT}, required=("id",)
)
NUM_ROWS = 11
GOOD = pa.table(
    {
        "extra": [0.5] * NUM_ROWS,
        "name": pa.array([f"n{n}" if n % 4 else None for n in range(NUM_ROWS)]),
        "id": pa.array(range(NUM_ROWS), INT),
        "price": pa.array(
            [n / 2 if n % 3 else None for n in range(NUM_ROWS)], FLOAT
        ),
    }
)
EXPECTED = GOOD.select(["id", "price", "name"]).to_pydict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.parquet"


def _write(path: Path, table: pa.Table, rows_a_group: int = 3) -> SourceFile:
    pq.write_table(table, path, row_group_size=rows_a_group)
    return SourceFile(path=path)


def _read(
    reader: ParquetReader, source: SourceFile, range_bytes: int = 1 << 30
) -> pa.Table:
    tables, numbers = [], []
    for start, end in reader.ranges(source, range_bytes):
        for rows in reader.read(source, start, end):
            tables.append(rows.table)
            numbers += rows.row.tolist()
            assert rows.num_read == len(rows.table)
    assert numbers == list(range(len(numbers)))
    return pa.concat_tables(tables or [reader.schema(source).empty_table()])


def _values(path: Path, values: pa.Array, wanted: pa.DataType) -> list[Any]:
    source = _write(path, pa.table({"a": values}))
    reader = ParquetReader(columns={"a": wanted})
    table = _read(reader, source)
    assert table.schema == reader.schema(source)
    assert table["a"].type == wanted
    found: list[Any] = table["a"].to_pylist()
    return found


@pytest.mark.parametrize("rows_a_group", [1, 2, 3, NUM_ROWS, 100])
@pytest.mark.parametrize("range_bytes", [1, 200, 1 << 30])
@pytest.mark.parametrize("block", [1, 2, 100])
def test_every_range_and_block_gives_the_same_rows(
    path: Path,
    rows_a_group: int,
    range_bytes: int,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_reader, "_BLOCK_ROWS", block)
    source = _write(path, GOOD, rows_a_group)
    assert _read(READER, source, range_bytes).to_pydict() == EXPECTED


def test_ranges_are_of_row_groups(path: Path) -> None:
    source = _write(path, GOOD)
    assert READER.ranges(source, 1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    size = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    assert READER.ranges(source, size + 1) == [(0, 2), (2, 4)]
    assert READER.ranges(source, 1 << 30) == [(0, 4)]


def test_file_without_rows(path: Path) -> None:
    source = _write(path, GOOD.slice(0, 0))
    assert _read(READER, source).num_rows == 0
    assert len(READER.ranges(source, 1)) == 1


@pytest.mark.parametrize("range_bytes", [1, 200, 1 << 30])
@pytest.mark.parametrize("place", [0, 4, NUM_ROWS - 1])
def test_missing_value_names_the_row(
    path: Path, range_bytes: int, place: int
) -> None:
    ids = [None if n >= place else n for n in range(NUM_ROWS)]
    table = GOOD.set_column(2, "id", pa.array(ids, INT))
    source = _write(path, table)
    message = f"{path}, row {place + 1}: `id` is missing"
    with pytest.raises(InputError, match=re.escape(message)):
        _read(READER, source, range_bytes)


def test_rows_that_were_dropped_leave_numbers(path: Path) -> None:
    source = _write(path, GOOD, NUM_ROWS)
    (rows,) = READER.read(source)
    rows.drop_unless(rows.table["price"].is_valid(), "no price")
    valid = rows.row < 7
    with pytest.raises(InputError, match=r"row 8: too many\. Received: id=7"):
        rows.require(valid, "too many", "id")
    assert rows.dropped == {"no price": 4}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None], pa.int8()), [1, None]),
        (pa.array([1, -5], pa.int32()), [1, -5]),
        (pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        (pa.array([True, False, None]), [1, 0, None]),
        # What pandas makes of integers beside a missing one.
        (pa.array([3.0, float("nan"), None]), [3, None, None]),
        (pa.array([3.0, 1 - 2.0**53]), [3, 1 - 2**53]),
        (pa.array([3.0, 1 - 2.0**24], FLOAT), [3, 1 - 2**24]),
        (pa.array([3.0, None], pa.float16()), [3, None]),
        (pa.array([decimal.Decimal("7.00"), None]), [7, None]),
        (pa.array([5, None, 5]).dictionary_encode(), [5, None, 5]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_whole_numbers(
    path: Path, values: pa.Array, expected: list[object]
) -> None:
    assert _values(path, values, INT) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([0.5, None, float("nan")], FLOAT), [0.5, None, None]),
        (pa.array([0.5, 1e-60, float("nan")]), [0.5, 0.0, None]),
        (pa.array([0.5, float("nan")], pa.float16()), [0.5, None]),
        # Rounded as text would be, and not refused.
        (pa.array([20_000_001, None]), [20_000_000.0, None]),
        (
            pa.array([decimal.Decimal("0.01"), None]),
            [pytest.approx(0.01), None],
        ),
        (pa.array([True, False]), [1.0, 0.0]),
        (pa.nulls(1), [None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers(path: Path, values: pa.Array, expected: list[object]) -> None:
    assert _values(path, values, FLOAT) == expected


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "ä€", None, ""]),
        pa.array(["a", "ä€", None, ""], pa.large_string()),
        pa.array(["a", "ä€", None, ""], pa.string_view()),
        pa.array(["a", "ä€", None, ""]).dictionary_encode(),
        pa.array([b"a", "ä€".encode(), None, b""]),
        pa.array([b"a", "ä€".encode(), None, b""], pa.large_binary()),
    ],
    ids=lambda values: str(values.type),
)
def test_texts(path: Path, values: pa.Array) -> None:
    # An empty text is a missing one, as in a file of text.
    assert _values(path, values, TEXT) == ["a", "ä€", None, None]


TIMESTAMP = pa.array([datetime.datetime(2022, 4, 1)])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array(["1"]), INT),
        (pa.array(["1"]).dictionary_encode(), INT),
        (pa.array([b"1"]), INT),
        (TIMESTAMP, INT),
        (TIMESTAMP.cast(pa.date32()), INT),
        (pa.array([datetime.timedelta(1)]), INT),
        (pa.array([[1]]), INT),
        (pa.array([{"b": 1}]), INT),
        (pa.array(["1"]), FLOAT),
        (TIMESTAMP, FLOAT),
        (pa.array([[1.0]]), FLOAT),
        (pa.array([1]), TEXT),
        (pa.array([0.5]), TEXT),
        (TIMESTAMP, TEXT),
        (pa.array([b"1234"], pa.binary(4)), TEXT),
        (pa.array([["a"]]), TEXT),
        (pa.array([[("a", "b")]], pa.map_(TEXT, TEXT)), TEXT),
    ],
    ids=str,
)
def test_column_of_another_kind(
    path: Path, values: pa.Array, wanted: pa.DataType
) -> None:
    source = _write(path, pa.table({"a": values}))
    found = pq.read_schema(path).field("a").type
    message = f"{path}: column 'a' of type {found} cannot be read as {wanted}."
    reader = ParquetReader(columns={"a": wanted})
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        reader.ranges(source, 1)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        list(reader.read(source))


@pytest.mark.parametrize("rows_a_group", [1, 2, 100])
@pytest.mark.parametrize(
    ("bad", "kind", "wanted", "message"),
    [
        (
            1.5,
            pa.float64(),
            INT,
            "`a` of type double cannot be read as int64. Received: a=1.5",
        ),
        (2.0**53, pa.float64(), INT, "`a` of type double holds whole"),
        (2.0**24, FLOAT, INT, "`a` of type float holds whole numbers"),
        (2.0**11, pa.float16(), INT, "`a` of type halffloat holds whole"),
        (float("inf"), pa.float64(), INT, "`a` of type double holds whole"),
        (
            2**63,
            pa.uint64(),
            INT,
            "`a` is above 9223372036854775807, the largest whole number; "
            f"write the column as text. Received: a={2**63}",
        ),
        (
            decimal.Decimal("1.5"),
            pa.decimal128(9, 2),
            INT,
            "`a` of type decimal128(9, 2) cannot be read as int64. "
            "Received: a=Decimal('1.50')",
        ),
        (
            decimal.Decimal(10**20),
            pa.decimal128(30, 0),
            INT,
            "`a` of type decimal128(30, 0) cannot be read as int64. "
            "Received: a=Decimal('1000",
        ),
        (
            float("inf"),
            FLOAT,
            FLOAT,
            "`a` is not a finite number of 32 bits. Received: a=inf",
        ),
        (
            float("-inf"),
            pa.float64(),
            FLOAT,
            "`a` is not a finite number of 32 bits. Received: a=-i",
        ),
        (
            1e39,
            pa.float64(),
            FLOAT,
            "`a` is not a finite number of 32 bits. Received: a=1e+39",
        ),
        (
            b"\xff",
            pa.binary(),
            TEXT,
            "`a` of type binary cannot be read as string. Received: a=b'\\xff'",
        ),
    ],
)
def test_bad_value_names_the_row(
    path: Path,
    rows_a_group: int,
    bad: object,
    kind: pa.DataType,
    wanted: pa.DataType,
    message: str,
) -> None:
    fine = b"1" if kind == pa.binary() else decimal.Decimal(1)
    if not pa.types.is_decimal(kind) and kind != pa.binary():
        fine = 1
    source = _write(
        path,
        pa.table({"a": pa.array([fine, None, fine, fine, bad, bad], kind)}),
        rows_a_group,
    )
    reader = ParquetReader(columns={"a": wanted})
    for range_bytes in (1, 1 << 30):
        with pytest.raises(InputError) as caught:
            _read(reader, source, range_bytes)
        assert str(caught.value).startswith(f"{path}, row 5: {message}")


def test_nan_in_a_required_column_is_missing(path: Path) -> None:
    source = _write(path, pa.table({"a": [1.0, float("nan")]}))
    reader = ParquetReader(columns={"a": FLOAT}, required=("a",))
    with pytest.raises(InputError, match="row 2: `a` is missing"):
        list(reader.read(source))


def test_columns_of_the_types_of_the_file(path: Path) -> None:
    table = pa.table({"a": [[1, 2], None], "b": TIMESTAMP.take([0, 0])})
    source = _write(path, table)
    reader = ParquetReader(columns={"b": None, "a": None})
    assert _read(reader, source).equals(table.select(["b", "a"]))
    assert reader.schema(source).field("a").type == pa.list_(pa.int64())


def test_struct_with_a_field_of_the_name(path: Path) -> None:
    # Parquet calls the field "a.b", which is not a column called so.
    table = pa.table({"a": [{"b": 1, "c": 2}], "b": [3]})
    source = _write(path, table)
    assert _read(ParquetReader(columns={"b": INT}), source).to_pydict() == {
        "b": [3]
    }
    with pytest.raises(InputError, match=r"no column 'a\.b'\. It has a, b"):
        ParquetReader(columns={"a.b": INT}).ranges(source, 1)


def test_missing_or_repeated_column(path: Path) -> None:
    source = _write(path, GOOD.drop_columns(["price"]))
    message = f"{path} has no column 'price'. It has extra, name, id."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        READER.ranges(source, 1)
    source = _write(path, pa.table([[1], [2]], names=["id", "id"]))
    with pytest.raises(InputError, match="has 2 columns 'id'"):
        ParquetReader(columns={"id": INT}).ranges(source, 1)


@pytest.mark.parametrize("kept", [0, 3, 8, 0.5, -1])
def test_file_cut_off(path: Path, kept: float) -> None:
    source = _write(path, GOOD)
    data = path.read_bytes()
    path.write_bytes(
        data[: int(kept * len(data)) if kept == 0.5 else int(kept)]
    )
    for reading in (
        lambda: READER.ranges(source, 1),
        lambda: list(READER.read(source)),
    ):
        with pytest.raises(InputError, match="is not a Parquet file") as caught:
            reading()
        assert str(caught.value).startswith(str(path))
        assert len(str(caught.value).splitlines()) == 1


def test_other_file(path: Path) -> None:
    path.write_bytes(b"id,price,name\n1,2,a\n")
    with pytest.raises(InputError, match="is not a Parquet file"):
        READER.ranges(SourceFile(path=path), 1)


def test_damaged_pages_and_footer(path: Path) -> None:
    # With checksums no damage goes unnoticed, wherever it is.
    table = pa.table({"id": pa.array(range(1000), INT)})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False)
    data = path.read_bytes()
    reader = ParquetReader(columns={"id": INT})
    source = SourceFile(path=path)
    assert _read(reader, source).equals(table)
    noticed = []
    for place in range(100, len(data) - 8, 97):
        wrong = bytearray(data)
        wrong[place] ^= 0xFF
        path.write_bytes(wrong)
        try:
            found = _read(reader, source)
        except InputError as error:
            noticed.append(str(error))
        else:
            # In what is not read: statistics, names of programs.
            assert found.equals(table)
    assert len(noticed) > 5
    for message in noticed:
        assert message.startswith(str(path))
        assert len(message.splitlines()) == 1
