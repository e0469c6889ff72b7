import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipelines.raw import csv_reader
from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError
from tests.data_pipelines.raw_files import packed

COLUMNS = {"id": pa.int64(), "name": pa.string(), "price": pa.float32()}
GOOD = b"id,extra,name ,price\n1,x,a,0.5\n2,y,,\n3,z,c,7\n"
LATIN = CsvFormat(
    delimiter="::",
    column_names=("id", "name", "price"),
    encoding="latin-1",
    quoted=False,
)
TEXTS = CsvReader(columns=dict.fromkeys("ab", pa.string()))


def _read(
    path: Path, data: bytes, columns: object = COLUMNS, **options: object
) -> pa.Table:
    path.write_bytes(data)
    return _table(CsvReader(columns=columns, **options), SourceFile(path=path))


def _table(reader: CsvReader, source: SourceFile) -> pa.Table:
    reader.ranges(source, 1 << 20)
    tables = [rows.table for rows in reader.read(source)]
    return pa.concat_tables(tables or [reader.schema(source).empty_table()])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_columns_by_stripped_name(
    path: Path, line_end: bytes, start: bytes
) -> None:
    table = _read(path, start + GOOD.replace(b"\n", line_end))
    assert table.to_pydict() == {
        "id": [1, 2, 3],
        "name": ["a", None, "c"],
        "price": [0.5, None, 7.0],
    }
    assert table.schema == CsvReader(columns=COLUMNS).schema(
        SourceFile(path=path)
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"5", 5),
        (b"-5", -5),
        (b" 5\t", 5),
        (b"007", 7),
        (b'"5"', 5),
        (b"-9223372036854775808", -(2**63)),
        (b'""', None),
        (b"+5", "+5"),
        # To arrow this is 31.
        (b"0x1f", "0x1f"),
        (b'"0X1F"', "0X1F"),
        (b"5.0", "5.0"),
        (b"5_0", "5_0"),
        (b"1e3", "1e3"),
        (b" ", " "),
        (b"9223372036854775808", "9223372036854775808"),
        (b"9" * 5000, "9" * 5000),
        ("٣".encode(), "٣"),
    ],
)
def test_whole_numbers(path: Path, text: bytes, value: object) -> None:
    data = b"id\n1\n" + text + b"\n"
    columns = {"id": pa.int64()}
    if isinstance(value, str):
        message = f"{path}, line 3: `id` is not a whole number: {value!r}"
        with pytest.raises(InputError, match=re.escape(message)):
            _read(path, data, columns)
    else:
        assert _read(path, data, columns)["id"].to_pylist() == [1, value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1.5", 1.5),
        (b"+.5", 0.5),
        (b"-1.", -1.0),
        (b"1e5", 1e5),
        (b" 2 ", 2.0),
        (b"", None),
        (b"1e39", "`price` is not finite. Received: price=inf"),
        (b"-inf", "`price` is not finite. Received: price=-inf"),
        (b"NaN", "`price` is not finite. Received: price=nan"),
        (b"1_0", "`price` is not a number: '1_0'"),
        (b".", "`price` is not a number: '.'"),
        (b"0x1p3", "`price` is not a number: '0x1p3'"),
    ],
)
def test_numbers(path: Path, text: bytes, value: object) -> None:
    data = b"id,price\n1,0\n2," + text + b"\n"
    columns = {"price": pa.float32()}
    if isinstance(value, str):
        with pytest.raises(InputError, match=re.escape(f"line 3: {value}")):
            _read(path, data, columns)
    else:
        assert _read(path, data, columns)["price"].to_pylist() == [0, value]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"2,y", b"2x,y", "line 3: `id` is not a whole number: '2x'"),
        (b"2,y", b"2.0,y", "line 3: `id` is not a whole number: '2.0'"),
        (b"3,z", b"9" * 20 + b",z", "line 4: `id` is not a whole number"),
        (b"z,c,7", b"z,c,cheap", "line 4: `price` is not a number: 'cheap'"),
        (b"z,c,7", b"z,c,nan", "line 4: `price` is not finite"),
        (b"z,c,7", b"z,c,-inf", "line 4: `price` is not finite"),
        (b"y,,", b"y,\xff,", "line 3: not utf-8 text"),
        (b"2,y,,\n", b"2,y,\n", "line 3: 3 values where 4 belong"),
        # To arrow a blank line is a row without values.
        (b"2,y,,\n", b"\n", "line 3: `id` is missing"),
        (b"2,y,,\n", b"2,y,,,\n", "line 3: 5 values where 4 belong"),
        (b"y,,", b'y,"b,', "line 3: a quoted value does not end on its line"),
        (b"z,c,7\n", b'z,c,"7\n', "line 4: a quoted value does not end"),
        (b"z,c,7\n", b'z,"c,7\n', "line 4: a quoted value does not end"),
        (b"z,c,7\n", b'z,c,"7', "line 4: the last line has no line end"),
        (b"c,7\n", b"c,7", "line 4: the last line has no line end"),
        (
            b",z,c,7\n",
            b",z",
            "line 4: 2 values where 4 belong; the file looks cut off",
        ),
        (b"y,,\n", b"y,\r,\n", "line 3: a carriage return within the line"),
        (b"y,,\n", b"y,,\r\r\n", "line 3: a carriage return within the line"),
        (b"y,,\n", b'y,"\r",\n', "line 3: a carriage return within the line"),
        (b"z,c,7\n", b"z,c,7\r", "line 4: the last line has no line end"),
        (b"2,y,,", b"2,\0,,", "line 3: a NUL character"),
        (b"2,y,,", b"2,y,,\0", "line 3: a NUL character"),
        (b"1,x", b"\xef\xbb\xbf1,x", "line 2: a byte order mark within the"),
        (b"2,y", b"\xef\xbb\xbf2,y", "line 3: `id` is not a whole number"),
        (b"price", b"prize", "line 1: the header has no column price"),
        (b"price", b'"price', "line 1: the header has no column id, name"),
        (b"extra", b"ext\0ra", "line 1: the header holds a carriage return or"),
        (b"extra", b"ext\rra", "line 1: the header holds a carriage return or"),
        (b"price\n", b"price\r\r\n", "line 1: the header holds a carriage"),
        (b"price\n", b"price," + b"x" * 70_000 + b"\n", "of 65,536 bytes and"),
        (b"extra", b"id", "line 1: columns repeat: id"),
        (b"name ", b"nam\xff", "line 1: the header is not UTF-8 text"),
    ],
)
def test_bad_text_names_file_and_line(
    path: Path, old: bytes, new: bytes, message: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        _read(path, GOOD.replace(old, new), required=("id",))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "fine",
    [
        b'2,y,5" pipe,1',
        b'2,y,a"",1',
        b'2,y,"a""b,",1',
        b"2,\xff,b,1",
        b"2,y," + b"a" * 140_000 + b",1",
        b"2,0x1,0x2,1",
        b"\n",
    ],
    ids=[*("quote", "two quotes", "quoted", "bytes", "long", "0x", "blank")],
)
def test_a_fine_line_is_not_blamed_for_a_later_one(
    path: Path, fine: bytes
) -> None:
    data = GOOD.replace(b"2,y,,", fine)
    assert _read(path, data).num_rows >= 3
    later = re.escape("`id` is not a whole number: 'three'")
    line = data.count(b"\n")
    with pytest.raises(InputError, match=f"line {line}: {later}"):
        _read(path, data.replace(b"3,z", b"three,z"))


def test_quoted_value_over_two_lines(path: Path) -> None:
    # Arrow takes it for one row, and all later rows would have wrong lines.
    with pytest.raises(InputError, match="line 2: a quoted value does not"):
        _read(path, b'id,name,price\n1,"a\nb",2\n3,c,4\n')


def test_line_too_few_and_line_too_many_do_not_cancel_out(path: Path) -> None:
    data = b'id,name,price\n1,"a\nb",2\n3,c,4\r5,d,6\n'
    with pytest.raises(InputError, match="line 2: a quoted value does not"):
        _read(path, data)


def test_lone_carriage_returns(path: Path) -> None:
    with pytest.raises(InputError, match="line 2: a carriage return within"):
        _read(path, b"id,name,price\n1,a,2\r3,c,4\n")
    # As old Macs wrote them, the whole file is one line.
    data = GOOD.replace(b"\n", b"\r")
    with pytest.raises(InputError, match="line 1: the header has no col"):
        _read(path, data + data * 1000)
    with pytest.raises(InputError) as caught:
        _read(path, data + data * 1000)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_quotes_are_text_where_nothing_is_quoted(path: Path) -> None:
    data = b'id,name,price\n1,"a,2\n3,c",4\n'
    table = _read(path, data, file_format=CsvFormat(quoted=False))
    assert table["name"].to_pylist() == ['"a', 'c"']


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bad_row_far_into_the_file(path: Path, suffix: str) -> None:
    rows = [f"{n},x,name{n},1.5\n" for n in range(200_000)]
    rows[150_000] = "150000x,x,a,1\n"
    data = b"id,extra,name,price\n" + "".join(rows).encode()
    path = path.with_name(f"file.csv{suffix}")
    with pytest.raises(InputError, match="line 150002: `id`"):
        _read(path, packed(data, suffix))


def test_line_longer_than_a_block(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 1000)
    long = b"3,z," + b"c" * 990 + b",7\n"
    assert len(long) <= 1000
    data = GOOD.replace(b"3,z,c,7\n", long)
    assert _read(path, data)["name"].to_pylist()[2] == "c" * 990
    with pytest.raises(InputError, match="line 4: a line of more than 1,000 b"):
        _read(path, data.replace(b"cc", b"ccc", 2500))


def test_required_value_missing(path: Path) -> None:
    with pytest.raises(InputError, match="line 3: `name` is missing"):
        _read(path, GOOD, required=("id", "name"))


@pytest.mark.parametrize("data", [b"", b"\n", b"id,name\n", b"\0" * 100_000])
def test_header_missing_or_short(path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="line 1: the header has no column"):
        _read(path, data)


def test_header_alone_is_an_empty_table(path: Path) -> None:
    assert _read(path, b"id,name,price\n").num_rows == 0
    with pytest.raises(InputError, match="line 1: the last line has no line e"):
        _read(path, b"id,name,price")


def test_null_values_are_the_given_ones_alone(path: Path) -> None:
    data = b"id,name,price\n1,NULL,2\n2,NA,3\nNULL,,4\n"
    layout = CsvFormat(null_values=("", "NULL"))
    table = _read(path, data, file_format=layout)
    assert table["name"].to_pylist() == [None, "NA", None]
    assert table["id"].to_pylist() == [1, 2, None]


def test_long_delimiter_without_header(path: Path) -> None:
    data = b'1::a: "\xe9"::2\n2::b,c::3\n'
    table = _read(path, data, file_format=LATIN)
    assert table["name"].to_pylist() == ['a: "\xe9"', "b,c"]
    with pytest.raises(InputError, match="line 2: `price` is not a number"):
        _read(path, data.replace(b"::3", b"::x"), file_format=LATIN)
    assert _read(path, b"", file_format=LATIN).num_rows == 0


def test_what_stands_in_for_a_long_delimiter_is_none(path: Path) -> None:
    with pytest.raises(
        InputError, match=r"line 2: a control character U\+001F"
    ):
        _read(path, b"1::a::2\n2\x1fb\x1f3\n", file_format=LATIN)


def test_long_delimiter_with_header_in_ranges(path: Path) -> None:
    path.write_bytes(b"id::name::price\n1::a::2\n2::b::3\n3::c::4\n")
    reader = CsvReader(
        columns=COLUMNS, file_format=CsvFormat(delimiter="::", quoted=False)
    )
    assert _all(reader, path, 10)[1]["name"] == ["a", "b", "c"]


# Ranges: every size of a range gives the same rows.


def _all(
    reader: CsvReader, path: Path, range_bytes: int
) -> tuple[list[str], dict[str, list[object]]]:
    """Returns file and line of every row, and the rows."""
    source = SourceFile(path=path)
    where, tables, numbers = [], [], []
    for start, end in reader.ranges(source, range_bytes):
        for rows in reader.read(source, start, end):
            numbers += rows.row.tolist()
            where += [reader.where(source, start, n) for n in rows.row.tolist()]
            tables.append(rows.table)
    assert numbers == sorted(set(numbers))
    return where, pa.concat_tables(
        tables or [reader.schema(source).empty_table()]
    ).to_pydict()


def _lines(rows: Sequence[tuple[str, str]], ends: Sequence[str]) -> bytes:
    return "".join(
        f"{a},{b}{ends[n % len(ends)]}" for n, (a, b) in enumerate(rows)
    ).encode()


_VALUES = st.sampled_from(["", "x", "ä€", "1" * 30, "a b", '"', '"q,q"', "'"])


@given(
    rows=st.lists(st.tuples(_VALUES, _VALUES), max_size=8),
    ends=st.sampled_from([("\n",), ("\r\n",), ("\n", "\r\n")]),
    has_header=st.booleans(),
    has_mark=st.booleans(),
)
@example(rows=[("", "")], ends=("\n",), has_header=False, has_mark=False)
@example(rows=[], ends=("\r\n",), has_header=True, has_mark=True)
def test_every_range_size_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    ends: tuple[str, ...],
    has_header: bool,
    has_mark: bool,
) -> None:
    is_quoted = not any('"' in (a, b) for a, b in rows)
    layout = CsvFormat(
        quoted=is_quoted, column_names=None if has_header else ("a", "b")
    )
    if not is_quoted:
        rows = [(a.replace(",", ""), b.replace(",", "")) for a, b in rows]
    reader = CsvReader(columns=TEXTS.columns, file_format=layout)
    expected = {
        name: [
            (row[column].strip('"') if is_quoted else row[column]) or None
            for row in rows
        ]
        for column, name in enumerate("ab")
    }
    path = tmp_path_factory.mktemp("ranges") / "file.csv"
    text = _lines([("a", "b"), *rows] if has_header else rows, ends)
    path.write_bytes(b"\xef\xbb\xbf" * (has_mark and bool(text)) + text)
    lines = [f"{path}, line {n + 1 + has_header}" for n in range(len(rows))]
    size = path.stat().st_size
    for range_bytes in {1, 2, 3, 5, 7, size - 1, size, size + 1} - {0, -1}:
        where, found = _all(reader, path, range_bytes)
        assert found == expected
        assert where == lines


@given(
    num_rows=st.integers(1, 12),
    data=st.data(),
    fault=st.sampled_from(
        [
            (b"x,1\n", "`a` is not a whole number: 'x'"),
            (b"1\n", "1 values where 2 belong"),
            (b"1,2,3\n", "3 values where 2 belong"),
            (b",1\n", "`a` is missing"),
            (b"\n", "`a` is missing"),
            (b"1,inf\n", "`b` is not finite. Received: b=inf"),
            (b"0xa,1\n", "`a` is not a whole number: '0xa'"),
            (b"1,\0\n", "a NUL character"),
            (b"1,\r2\n", "a carriage return within the line"),
            (b"1,2\r\r\n", "a carriage return within the line"),
            (b'1,"2\n', "a quoted value does not end on its line"),
        ]
    ),
)
def test_every_range_size_names_the_same_line(
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    data: st.DataObject,
    fault: tuple[bytes, str],
) -> None:
    reader = CsvReader(
        columns={"a": pa.int64(), "b": pa.float32()}, required=("a",)
    )
    lines = [b"a,b\n", *(b"%d,%d\n" % (7**n, n) for n in range(num_rows))]
    line = data.draw(st.integers(1, num_rows))
    lines[line] = fault[0]
    path = tmp_path_factory.mktemp("ranges") / "file.csv"
    path.write_bytes(b"".join(lines))
    for range_bytes in (1, 3, 8, 17, 1000):
        with pytest.raises(InputError) as caught:
            _all(reader, path, range_bytes)
        assert str(caught.value).startswith(
            f"{path}, line {line + 1}: {fault[1]}"
        )


@pytest.mark.parametrize("range_bytes", range(1, len(GOOD) + 2))
def test_missing_last_line_end_in_ranges(path: Path, range_bytes: int) -> None:
    path.write_bytes(GOOD[:-1])
    with pytest.raises(InputError, match="line 4: the last line has no line e"):
        _all(CsvReader(columns=COLUMNS), path, range_bytes)


def test_only_the_range_with_the_last_line_is_refused(path: Path) -> None:
    path.write_bytes(GOOD[:-1])
    reader = CsvReader(columns=COLUMNS)
    source = SourceFile(path=path)
    refused = []
    for start, end in reader.ranges(source, 10):
        try:
            list(reader.read(source, start, end))
        except InputError:
            refused.append(start)
    assert refused == [30]


def test_byte_order_mark_at_the_start_of_a_range(path: Path) -> None:
    # To arrow it would be no part of the value, which it is elsewhere.
    path.write_bytes(b"a,b\n1,2\n\xef\xbb\xbf3,4\n5,6\n")
    source = SourceFile(path=path)
    (rows,) = TEXTS.read(source)
    assert rows.table["a"].to_pylist() == ["1", "\ufeff3", "5"]
    with pytest.raises(InputError, match="line 3: a byte order mark within"):
        list(TEXTS.read(source, 8, 20))


def test_ranges_cover_the_file(path: Path) -> None:
    path.write_bytes(GOOD)
    reader = CsvReader(columns=COLUMNS)
    source = SourceFile(path=path)
    size = len(GOOD)
    assert reader.ranges(source, 20) == [(0, 20), (20, 40), (40, None)]
    assert reader.ranges(source, size - 1) == [(0, size - 1), (size - 1, None)]
    assert reader.ranges(source, size) == [(0, None)]


@pytest.mark.parametrize("suffix", [".gz", ".tar.gz", ".zip"])
def test_packed_file_is_one_range(path: Path, suffix: str) -> None:
    path = path.with_name(f"file.csv{suffix}")
    path.write_bytes(packed(GOOD, suffix))
    reader = CsvReader(columns=COLUMNS)
    source = SourceFile(path=path)
    assert reader.ranges(source, 1) == [(0, None)]
    assert _table(reader, source)["id"].to_pylist() == [1, 2, 3]


def test_reading_stops_where_it_is_left(path: Path) -> None:
    path.write_bytes(GOOD)
    rows = CsvReader(columns=COLUMNS).read(SourceFile(path=path))
    assert isinstance(next(rows), RawRows)
    rows.close()  # type: ignore[attr-defined]
