import gzip
import io
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_pipelines.csv_files import CsvFile, CsvFormat
from data_pipelines.source_file import SourceFile
from sparsectr.errors import InputError

COLUMNS = {"id": pa.int64(), "name": pa.string(), "price": pa.float32()}
GOOD = b"id,extra,name ,price\n1,x,a,0.5\n2,y,,\n3,z,c,7\n"


def _read(path: Path, data: bytes, **options: object) -> CsvFile:
    path.write_bytes(data)
    return CsvFile(SourceFile(path=path), COLUMNS, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_columns_by_stripped_name(
    path: Path, line_end: bytes, start: bytes
) -> None:
    table = _read(path, start + GOOD.replace(b"\n", line_end)).table
    assert table.to_pydict() == {
        "id": [1, 2, 3],
        "name": ["a", None, "c"],
        "price": [0.5, None, 7.0],
    }


def _packed(kind: str, data: bytes) -> bytes:
    if kind == "gz":
        return gzip.compress(data)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("._file.csv", b"junk"), ("file.csv", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize("kind", ["gz", "tar.gz"])
def test_reads_packed_files(path: Path, kind: str) -> None:
    path.with_name(f"file.csv.{kind}").write_bytes(_packed(kind, GOOD))
    source = SourceFile.find(path.parent, "file.csv")
    table = CsvFile(source, COLUMNS).table
    path.write_bytes(GOOD)
    assert table == CsvFile(SourceFile(path=path), COLUMNS).table


@pytest.mark.parametrize("kind", ["gz", "tar.gz"])
def test_packed_file_cut_off(path: Path, kind: str) -> None:
    rows = "".join(f"{n},x,a{n * 7919 % 1000},1\n" for n in range(50_000))
    data = _packed(kind, GOOD + rows.encode())
    path.with_name(f"file.csv.{kind}").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged or cut off"):
        CsvFile(SourceFile.find(path.parent, "file.csv"), COLUMNS)


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
        (b"c,7\n", b"c,7", "line 4: the last line has no line end"),
        (
            b",z,c,7\n",
            b",z",
            "line 4: 2 values where 4 belong; the file looks cut off",
        ),
        (b"price", b"prize", "line 1: the header has no column price"),
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
    assert "\n" not in str(caught.value)


def test_quoted_value_over_two_lines(path: Path) -> None:
    # Arrow takes it for one row, and all later rows would have wrong lines.
    with pytest.raises(InputError, match="line 2: a quoted value does not"):
        _read(path, b'id,name,price\n1,"a\nb",2\n3,c,4\n')


def test_lone_carriage_returns(path: Path) -> None:
    with pytest.raises(InputError, match="line 2: 1 values where 3"):
        _read(path, b"id,name,price\n1,a,2\r3,c,4\n")


def test_quotes_are_text_where_nothing_is_quoted(path: Path) -> None:
    data = b'id,name,price\n1,"a,2\n3,c",4\n'
    table = _read(path, data, file_format=CsvFormat(quoted=False)).table
    assert table["name"].to_pylist() == ['"a', 'c"']


def test_bad_row_far_into_the_file(path: Path) -> None:
    rows = [f"{n},x,name{n},1.5\n" for n in range(200_000)]
    rows[150_000] = "150000x,x,a,1\n"
    with pytest.raises(InputError, match="line 150002: `id`"):
        _read(path, b"id,extra,name,price\n" + "".join(rows).encode())


def test_required_value_missing(path: Path) -> None:
    with pytest.raises(InputError, match="line 3: `name` is missing"):
        _read(path, GOOD, required=("id", "name"))


def test_require_names_the_first_wrong_line(path: Path) -> None:
    file = _read(path, GOOD)
    with pytest.raises(InputError, match=r"line 3: id too large.*id=2"):
        file.require(pc.less(file.table["id"], 2), "id too large", "id")


def test_repeated_id(path: Path) -> None:
    file = _read(path, GOOD.replace(b"3,z", b"1,z"))
    with pytest.raises(InputError, match=r"line 4: repeated id.*id=1"):
        file.require_unique("id")


@pytest.mark.parametrize("data", [b"", b"id,name\n"])
def test_header_missing_or_short(path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="line 1: the header has no column"):
        _read(path, data)


def test_header_alone_is_an_empty_table(path: Path) -> None:
    assert _read(path, b"id,name,price\n").table.num_rows == 0


def test_null_values_are_the_given_ones_alone(path: Path) -> None:
    data = b"id,name,price\n1,NULL,2\n2,NA,3\nNULL,,4\n"
    table = _read(
        path, data, file_format=CsvFormat(null_values=("", "NULL"))
    ).table
    assert table["name"].to_pylist() == [None, "NA", None]
    assert table["id"].to_pylist() == [1, 2, None]


def test_long_delimiter_without_header(path: Path) -> None:
    layout = CsvFormat(
        delimiter="::",
        column_names=("id", "name", "price"),
        encoding="latin-1",
        quoted=False,
    )
    data = b'1::a: "\xe9"::2\n2::b,c::3\n'
    table = _read(path, data, file_format=layout).table
    assert table["name"].to_pylist() == ['a: "\xe9"', "b,c"]
    with pytest.raises(InputError, match="line 2: `price` is not a number"):
        _read(path, data.replace(b"::3", b"::x"), file_format=layout)


def test_absent_file_or_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no file a\.csv"):
        SourceFile.find(tmp_path, "a.csv")
    with pytest.raises(InputError, match="is not a folder"):
        SourceFile.find(tmp_path / "no", "a.csv")


def test_describe_identifies_the_file(path: Path) -> None:
    path.write_bytes(b"abc")
    assert SourceFile(path=path).describe() == {
        "file": "file.csv",
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223"
        "b00361a396177a9cb410ff61f20015ad",
    }
