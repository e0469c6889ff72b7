"""What both ways to a remote store have in common."""

from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple, Protocol

BUFFER_BYTES = 8 * 2**20
"""Bytes of one request: each costs a round trip, whatever it brings."""


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
    """Reads and writes whole files by their URL.

    Every method but `errors` raises `FileNotFoundError` if something is not
    there and `InputError` if it cannot be reached.
    """

    def status(self, url: str) -> Status | None:
        """Returns what is at `url`, or `None` if there is nothing."""

    def list_folder(self, url: str) -> list[str]:
        """Returns the names of the files and folders in a folder."""

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder.

        They are named relative to the folder, with slashes.
        """

    def open(self, url: str) -> BinaryIO:
        """Opens a file for reading, buffered, with `seek`."""

    def create(self, url: str) -> Any:
        """Opens a file for writing; an object is there once it is closed."""

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""

    def errors(self, url: str) -> AbstractContextManager[None]:
        """Turns errors of reading and writing into those named above."""
