"""A raw file: where it is, its bytes, and what identifies it."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from data_pipelines.progress import Progress
from sparsectr.errors import InputError

_SUFFIXES = ("", ".gz", ".tar.gz")


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raw file, plain, `.gz`, or a `.tar.gz` that holds that one file.

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
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return cls(path=path)
        raise InputError(f"{folder} has no file {name} (nor .gz, nor .tar.gz).")

    @contextlib.contextmanager
    def open(self) -> Iterator["SourceStream"]:
        """Yields the unpacked bytes.

        Raises:
            InputError: If a packed file is damaged or cut off.
        """
        name = self.path.name
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.path.open("rb"))
            unpacked: _Readable = file
            try:
                if name.endswith(".tar.gz"):
                    archive = stack.enter_context(
                        tarfile.open(fileobj=file, mode="r|gz")
                    )
                    unpacked = _only_member(archive, self.path)
                elif name.endswith(".gz"):
                    unpacked = stack.enter_context(gzip.GzipFile(fileobj=file))
                size = self.path.stat().st_size
                yield SourceStream(name, file, unpacked, size)
            except (
                EOFError,
                zlib.error,
                gzip.BadGzipFile,
                tarfile.TarError,
            ) as error:
                raise InputError(
                    f"{self.path} is damaged or cut off: {error}"
                ) from error

    def describe(self) -> dict[str, Any]:
        """Returns name, size in bytes and SHA-256 for the manifest."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "file": self.path.name,
            "bytes": self.path.stat().st_size,
            "sha256": digest,
        }


class SourceStream(io.RawIOBase):
    """Bytes that are read once; it counts lines and shows progress.

    Args:
        name: Name of the file.
        file: The file on disk.
        unpacked: Its bytes, unpacked.
        size: Size of the file on disk.

    Attributes:
        num_line_ends: Number of line ends that were read.
        last_byte: The last byte that was read.
    """

    def __init__(
        self, name: str, file: IO[bytes], unpacked: _Readable, size: int
    ) -> None:
        super().__init__()
        self.num_line_ends = 0
        self.last_byte = b""
        self._file = file
        self._unpacked = unpacked
        self._size = max(size, 1)
        self._progress = Progress(f"reading {name}")

    def readable(self) -> bool:
        """Returns True."""
        return True

    # The type of a buffer is a name that Python has from 3.12 on.
    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes into `buffer` and returns how many."""
        data = self._unpacked.read(len(buffer))
        buffer[: len(data)] = data
        if data:
            self.num_line_ends += data.count(b"\n")
            self.last_byte = data[-1:]
        self._progress.report(f"{100 * self._file.tell() // self._size} %")
        return len(data)


def _only_member(archive: tarfile.TarFile, path: Path) -> IO[bytes]:
    for member in archive:
        # macOS puts "._name" files of its own beside the real one.
        if member.isfile() and not Path(member.name).name.startswith("._"):
            file = archive.extractfile(member)
            if file is not None:
                return file
    raise InputError(f"{path} holds no file.")
