"""Remote files and folders through a cache on this machine."""

import fcntl
import hashlib
import os
from pathlib import Path, PurePosixPath

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import FileSystem, Status
from sparsectr.file_systems.paths import Location, file_system, is_remote
from sparsectr.file_systems.transfer import fetch

_ATTEMPTS = 5


def local_copy(location: Location) -> Path:
    """Returns a local file or folder with the content of `location`.

    That is the path itself if it is local. A remote one is copied into the
    cache, `SPARSECTR_CACHE` or `~/.cache/sparsectr`, as it was at one moment.
    A file that is there with its size and time is not fetched again. Files
    are put in place whole, and one process at a time fetches an URL.

    Nothing is ever removed from the cache but files that a later fetch of the
    same URL finds gone.

    Raises:
        InputError: If there is nothing, it cannot be reached, or it keeps
            changing.
        OSError: If the cache cannot be written.
    """
    if not is_remote(location):
        return Path(location)
    url = str(location).rstrip("/")
    files = file_system(url)
    target = cache_folder("copies", url) / (_name(url) or "root")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        # Waits for other processes; a killed one holds nothing up.
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = files.status(url)
        if status is None:
            # tensorflow-io says the same to both.
            raise InputError(
                f"{url} does not exist, or not for the credentials in use."
            )
        if status.is_folder:
            fetch_folder(files, url, target)
            return target
        folder, _, name = url.rpartition("/")
        try:
            fetch(files, folder, {name: status}, target.parent)
        except FileNotFoundError as error:
            raise InputError(f"{url}: {error.strerror}") from error
    return target


def cache_folder(kind: str, url: str) -> Path:
    """Returns the folder of the cache that is for one URL."""
    root = os.environ.get("SPARSECTR_CACHE")
    cache = Path(root) if root else Path.home() / ".cache" / "sparsectr"
    # Not by its path: a bucket may hold both `a` and `a/b`.
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache.absolute() / kind / f"{_name(url)}-{digest}"


def fetch_folder(files: FileSystem, url: str, target: Path) -> None:
    """Makes a local folder equal to a remote one as it was at one moment.

    Raises:
        InputError: If it cannot be reached or keeps changing.
        OSError: If the local folder cannot be written.
    """
    listed = files.walk(url)
    for _ in range(_ATTEMPTS):
        _check_names(url, listed)
        try:
            fetch(files, url, listed, target)
            is_whole = True
        except FileNotFoundError:
            is_whole = False
        # A folder that is written to meanwhile, such as that of a run, is
        # listed anew until it stood still.
        before, listed = listed, files.walk(url)
        if is_whole and listed == before:
            break
    else:
        raise InputError(f"{url} keeps changing while it is copied.")
    target.mkdir(parents=True, exist_ok=True)
    kept = {target / name for name in listed}
    for path in target.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _check_names(url: str, names: dict[str, Status]) -> None:
    """Raises InputError if a name would leave the folder."""
    for name in names:
        if str(PurePosixPath(name)) != name or ".." in name.split("/"):
            raise InputError(f"{url} holds {name!r}, which no folder can.")


def _name(url: str) -> str:
    return url.partition("://")[2].rpartition("/")[2]
