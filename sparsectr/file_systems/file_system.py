"""What both ways to a remote store have in common."""

from contextlib import AbstractContextManager
from typing import IO, Literal, NamedTuple, Protocol

Mode = Literal["rb", "wb"]


class Status(NamedTuple):
    """What is known of a file or a folder without reading it.

    Attributes:
        is_folder: Whether it is a folder: a common start of names, in an
            object store.
        size: Bytes of a file.
        modified: When a file was written, in Unix seconds.
    """

    is_folder: bool
    size: int = 0
    modified: int = 0


class FileSystem(Protocol):
    """Reads and writes whole files by their URL, without a slash at its end.

    Every method raises `InputError`, with one line that names the URL, if
    something cannot be reached.
    """

    def status(self, url: str) -> Status | None:
        """Returns what is at `url`, or `None` if there is nothing."""

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder.

        They are named relative to the folder, with slashes.
        """

    def open(self, url: str, mode: Mode) -> AbstractContextManager[IO[bytes]]:
        """Opens a file to be read or written from its start to its end.

        What is written is there once the context has ended, by an error too.

        Raises:
            FileNotFoundError: Here or in the context, if there is no file to
                read, or no bucket to write to. It names `url`.
        """

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""
