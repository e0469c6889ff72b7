"""A local folder at a remote place: kept up to date there, or sent once."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import cache_folder, fetch_folder
from sparsectr.file_systems.paths import file_system, join
from sparsectr.file_systems.process_lock import ProcessLock
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
        self._lock: ProcessLock | None = None

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
        lock = ProcessLock(folder.with_name(f"{folder.name}.lock"), url)
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


def publish(
    folder: Path, url: str, last: Sequence[str] = ("manifest.json",)
) -> None:
    """Copies a finished folder to a remote place that is free.

    A reader that looks for the files in `last` never takes a half for the
    whole: they are sent when everything else is there.

    Args:
        folder: The local folder. Folders in it that are empty are left out.
        url: The remote folder.
        last: Files of `folder`, relative to it, to send last and in order.

    Raises:
        InputError: If there is something at `url`, or it cannot be written.
        OSError: If `folder` cannot be read.
    """
    url = url.rstrip("/")
    check_free(url)
    names = _stamps(folder)
    for name in last:
        if name not in names:
            raise ValueError(f"`last` names {name!r}, not a file of {folder}.")
    send(file_system(url), folder, names, url, last)


def check_free(url: str) -> None:
    """Raises InputError if `publish` could not write to `url`.

    Worth asking before the work that fills the folder.
    """
    url = url.rstrip("/")
    files = file_system(url)
    status = files.status(url)
    if status is not None and not status.is_folder:
        raise InputError(f"{url} exists and is not a folder.")
    if status is not None and files.walk(url):
        raise InputError(
            f"{url} exists and is not empty; remove it or name another folder."
        )


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns what tells whether a file changed, by relative name."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            found[name] = status.st_size, status.st_mtime_ns
    return found
