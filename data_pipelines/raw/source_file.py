"""A raw file: where it is, its bytes, and what identifies it."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from sparsectr.errors import InputError
from sparsectr.process.progress import Progress

_PACKINGS = (".gz", ".tar.gz", ".zip")
_CHUNK = 1 << 20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some programs put at the start of a file of UTF-8."""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raw file, plain, `.gz`, or a `.tar.gz` or `.zip` of that one file.

    Args:
        path: The file on disk.
    """

    path: Path

    @classmethod
    def find(cls, folder: Path, name: str) -> "SourceFile":
        """Returns the file called `name` in `folder`, packed or not.

        Raises:
            InputError: If there is none.
        """
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder.")
        for suffix in ("", *_PACKINGS):
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return cls(path=path)
        raise InputError(
            f"{folder} has no file {name} (nor {', nor '.join(_PACKINGS)})."
        )

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def state(self) -> tuple[int, int]:
        """Returns what changes when the file does: bytes and time."""
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    @property
    def is_packed(self) -> bool:
        """Whether it can only be read from its beginning."""
        return self.path.name.endswith(_PACKINGS)

    @contextlib.contextmanager
    def open(
        self, start: int = 0, end: int | None = None
    ) -> Iterator["SourceStream"]:
        """Yields the unpacked bytes of the lines that begin in a range.

        Args:
            start: First byte of the range; 0 for a packed file.
            end: One past the last; `None` for the end of the file.

        Raises:
            InputError: If a packed file is damaged or cut off.
        """
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.path.open("rb"))
            with _unpacking(self.path):
                unpacked = self._unpack(file, stack)
            if start:
                # A line that began before `start` is another range's.
                start = _next_line(file, start - 1)
            yield stack.enter_context(
                SourceStream(self, file, unpacked, start, end)
            )

    def _unpack(
        self, file: IO[bytes], stack: contextlib.ExitStack
    ) -> _Readable:
        name = self.path.name
        if name.endswith(".gz"):
            if not self.size:  # of which Python says nothing
                raise EOFError("the file is empty")
            unzipped = stack.enter_context(gzip.GzipFile(fileobj=file))
            if name.endswith(".tar.gz"):
                archive = stack.enter_context(
                    tarfile.TarFile.open(fileobj=unzipped, mode="r|")
                )
                return _OnlyTarMember(archive, unzipped, self.path)
            return unzipped
        if name.endswith(".zip"):
            folder = stack.enter_context(zipfile.ZipFile(file))
            return stack.enter_context(_only_zip_member(folder, self.path))
        return file

    def num_lines_before(self, start: int) -> int:
        """Returns how many lines begin before byte `start`."""
        if start == 0:
            return 0
        with self.open(0, start) as stream:
            while stream.read(_CHUNK):
                pass
            return stream.num_line_ends

    def describe(self) -> dict[str, Any]:
        """Returns name, size in bytes and SHA-256 for the manifest."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "file": self.path.name,
            "bytes": self.size,
            "sha256": digest,
        }


class SourceStream(io.RawIOBase):
    """Bytes that are read once; it counts lines and shows progress.

    A byte order mark at the start of the file is left out.

    Args:
        source: The file.
        file: The file on disk, opened.
        unpacked: Its bytes, unpacked.
        start: Where `unpacked` stands.
        end: The last line is the one that holds the byte before; `None` for
            the end of the file.

    Attributes:
        num_line_ends: Number of line ends that were read.
        num_bad_bytes: NULs, and carriage returns that end no line.
        has_hexadecimal: Whether "0x" was read, or "0X".
        last_line: The last line as far as it was read, with its end.
    """

    def __init__(
        self,
        source: SourceFile,
        file: IO[bytes],
        unpacked: _Readable,
        start: int,
        end: int | None,
    ) -> None:
        super().__init__()
        self.num_line_ends = 0
        self.num_bad_bytes = 0
        self.has_hexadecimal = False
        self.last_line = b""
        self._path = source.path
        self._file = file
        self._unpacked = unpacked
        self._position = start
        self._end = end
        self._is_done = end is not None and start >= end
        # Ranges of a plain file are short, and whoever reads them reports.
        self._progress = (
            Progress(f"reading {source.path.name}", source.size, "B")
            if source.is_packed
            else None
        )

    def readable(self) -> bool:
        """Returns True."""
        return True

    def close(self) -> None:
        """Ends the line of the progress."""
        if self._progress is not None:
            self._progress.close()
        super().close()

    def stop(self) -> None:
        """Lets it end here for whoever reads on."""
        self._is_done = True

    # The type of a buffer is a name that Python has from 3.12 on.
    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes into `buffer` and returns how many."""
        if self._is_done:
            return 0
        with _unpacking(self._path):
            data = self._unpacked.read(len(buffer))
        if not data:
            self._is_done = True
            return 0
        if self._end is not None:
            last = data.find(b"\n", max(self._end - 1 - self._position, 0))
            if last >= 0:
                data = data[: last + 1]
                self._is_done = True
        is_start = not self._position
        self._position += len(data)
        if is_start:
            data = data.removeprefix(BYTE_ORDER_MARK)
        buffer[: len(data)] = data
        self._count(data)
        if self._progress is not None:
            self._progress.advance(self._file.tell() - self._progress.n)
        return len(data)

    def _count(self, data: bytes) -> None:
        self.num_line_ends += data.count(b"\n")
        if b"\0" in data:
            self.num_bad_bytes += data.count(b"\0")
        for x in (b"x", b"X"):
            # Most files have none, and a single byte is found much faster.
            if x in data and (
                b"0" + x in data
                or (data.startswith(x) and self.last_line.endswith(b"0"))
            ):
                self.has_hexadecimal = True
        # One at the end of the data is counted when it is known what follows.
        if self.last_line.endswith(b"\r") and not data.startswith(b"\n"):
            self.num_bad_bytes += 1
        if b"\r" in data:
            self.num_bad_bytes += data.count(b"\r") - data.count(b"\r\n")
            self.num_bad_bytes -= data.endswith(b"\r")
        begin = data.rfind(b"\n", 0, len(data) - 1) + 1
        if not begin and not self.last_line.endswith(b"\n"):
            data = self.last_line + data
        self.last_line = data[begin:]


class _OnlyTarMember:
    """The one file of an archive that is read once, from its beginning."""

    def __init__(
        self, archive: tarfile.TarFile, unzipped: gzip.GzipFile, path: Path
    ) -> None:
        self._archive = archive
        self._members = iter(archive)
        self._unzipped = unzipped
        self._path = path
        file = self._next()
        if file is None:
            raise InputError(f"{path} holds no file.")
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """Reads as a file does; at its end, looks at what follows."""
        data = self._file.read(size)
        if not data:
            if self._next() is not None:
                raise InputError(f"{self._path} must hold one file.")
            # The checksum is at the very end.
            while self._unzipped.read(_CHUNK):
                pass
        return data

    def _next(self) -> IO[bytes] | None:
        for member in self._members:
            if member.isfile() and _is_real(member.name):
                return self._archive.extractfile(member)
        return None


@contextlib.contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(
            f"{path} is damaged or cut off: {' '.join(str(error).split())}"
        ) from error
    except NotImplementedError as error:
        raise InputError(
            f"{path} is packed in a way that Python does not know: {error}"
        ) from error


def _next_line(file: IO[bytes], position: int) -> int:
    """Goes to the first line that begins after a position."""
    file.seek(position)
    # In pieces, since a file that is no text may have no line end at all.
    while piece := file.readline(_CHUNK):
        position += len(piece)
        if piece.endswith(b"\n"):
            break
    return position


def _is_real(name: str) -> bool:
    # macOS puts files of its own, "._name" and ".DS_Store", beside the others.
    return not Path(name).name.startswith(".")


def _only_zip_member(archive: zipfile.ZipFile, path: Path) -> IO[bytes]:
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and _is_real(member.filename)
    ]
    if len(members) != 1:
        raise InputError(f"{path} must hold one file, it has {len(members)}.")
    if members[0].flag_bits & 1:
        raise InputError(f"{path} is encrypted.")
    return archive.open(members[0])
