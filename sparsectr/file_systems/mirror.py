"""A local folder whose content is kept at a remote place."""

import fcntl
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import cache_folder, fetch_folder
from sparsectr.file_systems.paths import file_system, join
from sparsectr.file_systems.transfer import send


class Mirror:
    """Sends what changed in a folder, in an order that stands a kill.

    Args:
        folder: The local folder. What is in it now is at `url` already.
        url: The remote folder.
        last: Files, relative to the folder, that name others. They are sent
            in this order when all others are there, and what is gone is
            removed after that: whenever it is cut off, what they name is
            whole.

    Attributes:
        folder: The local folder.
        url: The remote folder.
    """

    def __init__(self, folder: Path, url: str, last: Sequence[str]) -> None:
        self.folder = folder
        self.url = url.rstrip("/")
        self._last = last
        self._sent = _stamps(folder)
        self._lock: IO[str] | None = None

    @classmethod
    def work_on(cls, url: str, last: Sequence[str], *, fetch: bool) -> "Mirror":
        """Returns the mirror of a working folder of this process alone.

        The folder is in the cache, but no copy that others read is. What an
        earlier process left in it is removed: the remote folder is the truth.

        Args:
            url: The remote folder.
            last: See the class.
            fetch: Whether to begin with what is at `url`, or with nothing.

        Raises:
            InputError: If another process on this machine works on `url`, or
                it cannot be reached.
            OSError: If the cache cannot be written.
        """
        url = url.rstrip("/")
        folder = cache_folder("work", url)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise InputError(
                f"{url}: another process on this machine works on it."
            ) from error
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if fetch:
            fetch_folder(file_system(url), url, folder)
        mirror = cls(folder, url, last)
        mirror._lock = lock
        return mirror

    def close(self) -> None:
        """Lets others work on it; the end of the process does it too."""
        if self._lock is not None:
            self._lock.close()

    def send(self) -> None:
        """Brings the remote folder up to date.

        Files that were never here are left alone there.

        Raises:
            InputError: If it cannot be written.
        """
        files = file_system(self.url)
        now = _stamps(self.folder)
        changed = [n for n, stamp in now.items() if self._sent.get(n) != stamp]
        send(files, self.folder, changed, self.url, self._last)
        for name in sorted(self._sent.keys() - now.keys()):
            files.remove(join(self.url, name))
        self._sent = now


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns what tells whether a file changed, by relative name."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            found[name] = status.st_size, status.st_mtime_ns
    return found
