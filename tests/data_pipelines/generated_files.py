"""Delimited raw files in every layout that a reader must see through."""

import dataclasses
import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

PACKINGS = ("", ".gz", ".tar.gz")
JUNK = ("", "0", "x y", '"', "NULL", "ä;€", "'1'", "a" * 40)
"""Values of columns that nobody reads, in files without quotes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFile:
    """A file as bytes of values, which a test may spoil.

    Args:
        name: Its name, unpacked.
        columns: Names by which values are found, the order that of the file.
        rows: The values of each row.
        line_ends: What ends the header and each row.
        header: The first line without its end; without one, as in MovieLens,
            both are empty.
        packing: One of `PACKINGS`.
        delimiter: What stands between two values.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[bytes]]
    line_ends: Sequence[bytes]
    header: bytes
    packing: str
    delimiter: bytes = b","

    @property
    def disk_name(self) -> str:
        """Its name on disk."""
        return self.name + self.packing

    def text(self) -> bytes:
        """Returns the unpacked bytes."""
        lines = [self.header, *map(self.delimiter.join, self.rows)]
        return b"".join(
            line + end for line, end in zip(lines, self.line_ends, strict=True)
        )

    def packed(self) -> bytes:
        """Returns the bytes on disk."""
        text = self.text()
        if self.packing == ".gz":
            # In two members, as `cat a.gz b.gz` makes them.
            half = len(text) // 2
            return gzip.compress(text[:half], mtime=0) + gzip.compress(
                text[half:], mtime=0
            )
        if self.packing == ".tar.gz":
            return _archive(self.name, text)
        return text

    def with_row(self, index: int, row: Sequence[bytes]) -> "RawFile":
        """Returns a copy with another row in the place of one."""
        rows = list(self.rows)
        rows[index] = row
        return dataclasses.replace(self, rows=rows)

    def with_value(self, index: int, column: str, value: bytes) -> "RawFile":
        """Returns a copy with one value replaced."""
        row = list(self.rows[index])
        row[self.columns.index(column)] = value
        return self.with_row(index, row)

    def with_line_end(self, line: int, end: bytes) -> "RawFile":
        """Returns a copy in which line `line`, from 1, ends otherwise."""
        ends = list(self.line_ends)
        ends[line - 1] = end
        return dataclasses.replace(self, line_ends=ends)


def plain(name: str, text: str) -> RawFile:
    """Returns the file that has this text."""
    header, *lines = text.encode().split(b"\n")[:-1]
    return RawFile(
        name=name,
        columns=[column.strip() for column in header.decode().split(",")],
        rows=[line.split(b",") for line in lines],
        line_ends=[b"\n"] * (len(lines) + 1),
        header=header,
        packing="",
    )


def _archive(name: str, text: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        # The second is a file that macOS leaves beside the first.
        for member_name, content in ((f"._{name}", b"\0junk"), (name, text)):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write(
    folder: Path,
    files: Sequence[RawFile],
    replaced: Mapping[str, bytes] | None = None,
) -> Path:
    """Writes files to a new folder, those in `replaced` with those bytes."""
    folder.mkdir(parents=True)
    for file in files:
        data = (replaced or {}).get(file.name, file.packed())
        (folder / file.disk_name).write_bytes(data)
    return folder


@st.composite
def laid_out(
    draw: st.DrawFn,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    junk: Sequence[str] = JUNK,
) -> RawFile:
    """Draws a layout: order, unknown columns, line ends, blanks, packing."""
    extra = draw(st.lists(st.sampled_from(["extra", "备注"]), unique=True))
    order = draw(st.permutations([*columns, *extra]))
    fillers = draw(st.lists(st.sampled_from(junk), min_size=1, max_size=3))
    ends = draw(st.sampled_from([(b"\n",), (b"\r\n",), (b"\n", b"\r\n")]))
    blanks = draw(st.sampled_from([("", ""), ("", " "), (" ", "  ")]))
    texts = []
    for index, row in enumerate(rows):
        values = dict(zip(columns, map(str, row), strict=True))
        filler = fillers[index % len(fillers)]
        texts.append([values.get(c, filler).encode() for c in order])
    header = ",".join([*order[:-1], f"{blanks[0]}{order[-1]}{blanks[1]}"])
    start = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return RawFile(
        name=name,
        columns=order,
        rows=texts,
        line_ends=[ends[n % len(ends)] for n in range(len(rows) + 1)],
        header=start + header.encode(),
        packing=draw(st.sampled_from(PACKINGS)),
    )
