import io
import re
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.raw import source_file
from data_pipelines.raw.source_file import SourceFile
from sparsectr.errors import InputError
from tests.data_pipelines.raw_files import packed, tar_gz, zipped

TEXT = b"".join(b"%d,%d\n" % (n, 7919 * n % 1000) for n in range(50_000))
PACKINGS = [".gz", ".tar.gz", ".zip"]


def _source(folder: Path, suffix: str, data: bytes) -> SourceFile:
    path = folder / f"file.csv{suffix}"
    path.write_bytes(data)
    return SourceFile(path=path)


def _unpacked(source: SourceFile) -> bytes:
    with source.open() as stream:
        return io.BufferedReader(stream, 1 << 16).read()


@pytest.mark.parametrize("suffix", ["", *PACKINGS])
@pytest.mark.parametrize("text", [b"", b"a", TEXT], ids=["no", "a", "text"])
def test_unpacks(tmp_path: Path, suffix: str, text: bytes) -> None:
    source = _source(tmp_path, suffix, packed(text, suffix))
    assert SourceFile.find(tmp_path, "file.csv") == source
    assert source.is_packed == bool(suffix)
    with source.open() as stream:
        assert io.BufferedReader(stream, 1000).read() == text
        assert stream.num_line_ends == text.count(b"\n")
        assert stream.last_line == text[text.rfind(b"\n", 0, -1) + 1 :]


def test_the_unpacked_file_comes_first(tmp_path: Path) -> None:
    _source(tmp_path, ".gz", b"")
    plain = _source(tmp_path, "", b"a")
    assert SourceFile.find(tmp_path, "file.csv") == plain


@pytest.mark.parametrize("suffix", PACKINGS)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_cut_off(tmp_path: Path, suffix: str, kept: float) -> None:
    data = packed(TEXT, suffix)
    source = _source(tmp_path, suffix, data[: int(kept * len(data))])
    with pytest.raises(InputError, match="is damaged or cut off: ") as caught:
        _unpacked(source)
    assert str(caught.value).startswith(str(source.path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", PACKINGS)
def test_cut_off_in_a_tail_that_unpacks(tmp_path: Path, suffix: str) -> None:
    # All of the text can be unpacked, but its checksum is gone.
    source = _source(tmp_path, suffix, packed(TEXT, suffix)[:-6])
    with pytest.raises(InputError, match="is damaged or cut off: "):
        _unpacked(source)


@pytest.mark.parametrize("suffix", PACKINGS)
def test_no_archive_at_all(tmp_path: Path, suffix: str) -> None:
    source = _source(tmp_path, suffix, TEXT)
    with pytest.raises(InputError, match="is damaged or cut off: "):
        _unpacked(source)


@pytest.mark.parametrize("suffix", PACKINGS)
def test_one_wrong_byte(tmp_path: Path, suffix: str) -> None:
    data = bytearray(packed(TEXT, suffix))
    for place in range(len(data) // 4, len(data) // 2, 5000):
        wrong = data.copy()
        wrong[place] ^= 8
        source = _source(tmp_path, suffix, bytes(wrong))
        with pytest.raises(InputError, match="is damaged or cut off: "):
            _unpacked(source)


def test_wrong_checksum_of_text_that_unpacks(tmp_path: Path) -> None:
    # Stored, not compressed: nothing but the checksum tells.
    level = zlib.compressobj(0, zlib.DEFLATED, 31)
    data = level.compress(packed_tar := _tar(b"1,2\n")) + level.flush()
    assert packed_tar in data
    source = _source(tmp_path, ".tar.gz", data.replace(b"1,2\n", b"1,3\n"))
    with pytest.raises(InputError, match="damaged or cut off: CRC"):
        _unpacked(source)


def _tar(text: bytes) -> bytes:
    return zlib.decompress(tar_gz({"file.csv": text}), 31)


def test_tar_cut_off_before_it_was_compressed(tmp_path: Path) -> None:
    data = packed(_tar(TEXT)[:100_000], ".gz")
    with pytest.raises(InputError, match="is damaged or cut off: "):
        _unpacked(_source(tmp_path, ".tar.gz", data))


@pytest.mark.parametrize(
    ("members", "suffix", "message"),
    [
        ({}, ".tar.gz", "holds no file"),
        ({"._a": b"1", "d/": b""}, ".tar.gz", "holds no file"),
        ({"a": b"1\n", "b": b"2\n"}, ".tar.gz", "must hold one file"),
        ({}, ".zip", "must hold one file, it has 0"),
        ({"d/": b"", "d/._a": b"1"}, ".zip", "must hold one file, it has 0"),
        ({"a": b"1\n", "b": b"2\n"}, ".zip", "must hold one file, it has 2"),
    ],
)
def test_no_or_two_files(
    tmp_path: Path, members: dict[str, bytes], suffix: str, message: str
) -> None:
    make = tar_gz if suffix == ".tar.gz" else zipped
    source = _source(tmp_path, suffix, make(members))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        _unpacked(source)
    assert str(caught.value).startswith(str(source.path))


@pytest.mark.parametrize("make", [tar_gz, zipped])
def test_file_in_a_folder_with_what_macos_adds(
    tmp_path: Path, make: object
) -> None:
    assert callable(make)
    data = make(
        {
            "data/": b"",
            "data/.DS_Store": b"junk",
            "data/._a.csv": b"junk",
            "data/a.csv": TEXT,
            "__MACOSX/data/._a.csv": b"junk",
        }
    )
    suffix = ".zip" if make is zipped else ".tar.gz"
    assert _unpacked(_source(tmp_path, suffix, data)) == TEXT


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_other_compressions_of_zip(tmp_path: Path, compression: int) -> None:
    data = zipped({"a": TEXT}, compression)
    assert _unpacked(_source(tmp_path, ".zip", data)) == TEXT


def test_encrypted_zip(tmp_path: Path) -> None:
    data = _with_field(zipped({"a": TEXT}), local=6, central=8, value=1)
    with pytest.raises(InputError, match="is encrypted"):
        _unpacked(_source(tmp_path, ".zip", data))


@pytest.mark.parametrize("method", [9, 200], ids=["deflate64", "unknown"])
def test_unknown_compression(tmp_path: Path, method: int) -> None:
    data = _with_field(zipped({"a": TEXT}), local=8, central=10, value=method)
    with pytest.raises(
        InputError, match="in a way that Python does not know: That compr"
    ):
        _unpacked(_source(tmp_path, ".zip", data))


def _with_field(data: bytes, local: int, central: int, value: int) -> bytes:
    """Sets 16 bits of both headers of the first member."""
    changed = bytearray(data)
    changed[local : local + 2] = value.to_bytes(2, "little")
    place = data.index(b"PK\1\2") + central
    changed[place : place + 2] = value.to_bytes(2, "little")
    return bytes(changed)


def test_two_gzip_members_are_one_text(tmp_path: Path) -> None:
    data = packed(b"a\n", ".gz") + packed(b"b\n", ".gz")
    assert _unpacked(_source(tmp_path, ".gz", data)) == b"a\nb\n"


def test_absent_file_or_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no file a\.csv"):
        SourceFile.find(tmp_path, "a.csv")
    with pytest.raises(InputError, match="is not a folder"):
        SourceFile.find(tmp_path / "no", "a.csv")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"has no file a\.csv"):
        SourceFile.find(tmp_path, "a.csv")


def test_describe_identifies_the_file(tmp_path: Path) -> None:
    assert _source(tmp_path, "", b"abc").describe() == {
        "file": "file.csv",
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223"
        "b00361a396177a9cb410ff61f20015ad",
    }


def test_state_changes_with_the_file(tmp_path: Path) -> None:
    source = _source(tmp_path, "", b"abc")
    before = source.state()
    assert source.state() == before
    _source(tmp_path, "", b"abcd")
    assert source.state() != before


@given(
    text=st.text(alphabet="0xX\n\r\0", max_size=30),
    range_bytes=st.integers(1, 40),
    chunk=st.integers(1, 9),
)
def test_a_line_is_of_the_range_in_which_it_begins(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    range_bytes: int,
    chunk: int,
) -> None:
    data = text.encode()
    source = _source(tmp_path_factory.mktemp("source"), "", data)
    lines = re.findall(rb"[^\n]*\n|[^\n]+", data)
    begins = [sum(map(len, lines[:n])) for n in range(len(lines))]
    for start in range(0, len(data) + 3, range_bytes):
        end = start + range_bytes
        own = [
            line
            for line, begin in zip(lines, begins, strict=True)
            if start <= begin < end
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source_file, "_CHUNK", chunk)
            with source.open(start, end) as stream:
                found = b"".join(iter(lambda s=stream: s.read(chunk), b""))
            before = source.num_lines_before(start)
        assert found == b"".join(own)
        assert stream.num_line_ends == found.count(b"\n")
        assert stream.last_line == (own[-1] if own else b"")
        # One at the very end of the text may yet belong to a line end.
        lone = found.count(b"\r") - found.count(b"\r\n")
        lone -= found.endswith(b"\r")
        assert stream.num_bad_bytes == lone + found.count(b"\0")
        assert stream.has_hexadecimal == (b"0x" in found or b"0X" in found)
        whole = [b for b in begins if b < start]
        assert before == sum(
            lines[n].endswith(b"\n") for n in range(len(whole))
        )


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    mark = source_file.BYTE_ORDER_MARK
    source = _source(tmp_path, "", mark + b"a\n" + mark + b"b\n")
    assert _unpacked(source) == b"a\n" + mark + b"b\n"
    with source.open(5, None) as stream:
        assert stream.read(9) == mark + b"b\n"


def test_progress_of_a_packed_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 100_000, 6))
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(now)))
    _unpacked(_source(tmp_path, ".gz", packed(TEXT, ".gz")))
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("reading file.csv.gz: ")
    assert printed[-1].startswith("reading file.csv.gz: 100%")
    _unpacked(_source(tmp_path, "", TEXT))
    assert capsys.readouterr().err == ""
