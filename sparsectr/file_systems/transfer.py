"""Whole files between this machine and a remote store, several at once."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import FileSystem, Status
from sparsectr.file_systems.paths import join
from sparsectr.process.progress import Progress

_THREADS = 8
# Of one request, and held once or twice by each thread. See
# benchmarks/LOG.md for smaller ones.
_REQUEST_BYTES = 32 * 2**20

SETTLED_SECONDS = 2
"""A file that was younger is fetched again: the time of a remote file is in
whole seconds, so another one may have followed it in the same second. Clocks
that differ by more than this can hide that, if the sizes are equal too."""

_T = TypeVar("_T")


def fetch(
    files: FileSystem, url: str, names: Mapping[str, Status], folder: Path
) -> None:
    """Copies files of a remote folder, each whole or not at all.

    A copy gets the size and the time of its original, and one that has them
    already is not fetched again.

    Args:
        files: What serves them.
        url: The remote folder.
        names: The files, relative to the folder.
        folder: The local folder.

    Raises:
        FileNotFoundError: If one is not there any more.
        InputError: If one cannot be read.
        OSError: If one cannot be written.
    """
    names = {k: v for k, v in names.items() if not _is_current(folder / k, v)}
    progress = Progress("fetch", sum(s.size for s in names.values()), "B")

    def copy(name: str) -> None:
        status, target = names[name], folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        start = time.time()
        with (
            files.open(join(url, name), "rb") as source,
            partial.open("wb") as file,
        ):
            _copy(source, file, progress)
        if partial.stat().st_size != status.size:
            # Replaced since it was listed; the next listing will tell.
            raise FileNotFoundError(2, "it changed while it was read", url)
        if status.modified < start - SETTLED_SECONDS:
            os.utime(partial, (status.modified, status.modified))
        partial.replace(target)

    with progress:
        _in_parallel(copy, names)


def _is_current(path: Path, status: Status) -> bool:
    """Returns whether `path` is what `fetch` made of a remote file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (found.st_size, found.st_mtime_ns) == (
        status.size,
        status.modified * 10**9,
    )


def send(
    files: FileSystem,
    folder: Path,
    names: Iterable[str],
    url: str,
    last: Iterable[str],
) -> None:
    """Copies files of a folder to a remote one.

    Args:
        files: What serves it.
        folder: The local folder.
        names: The files, relative to the folder.
        url: The remote folder.
        last: Those among `names` that are sent when all others are there,
            one after the other in this order.

    Raises:
        InputError: If one cannot be written.
        OSError: If one cannot be read.
    """
    names = set(names)
    markers = [name for name in last if name in names]
    size = sum((folder / name).stat().st_size for name in names)
    progress = Progress("send", size, "B")

    def copy(name: str) -> None:
        target = join(url, name)
        with (folder / name).open("rb") as source:
            try:
                with files.open(target, "wb") as file:
                    _copy(source, file, progress)
            except FileNotFoundError as error:
                raise InputError(
                    f"{target} cannot be written: there is no such bucket or "
                    "root."
                ) from error
            except InputError:
                raise  # of the store, which has kept what it had
            except BaseException:
                files.remove(target)  # a half, since it has been closed
                raise

    with progress:
        _in_parallel(copy, sorted(names.difference(markers)))
        for name in markers:
            copy(name)


def _in_parallel(action: Callable[[_T], None], items: Iterable[_T]) -> None:
    """Calls `action` on each item; after an error on no more of them."""
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(source: IO[bytes], file: IO[bytes], progress: Progress) -> None:
    while chunk := source.read(_REQUEST_BYTES):
        file.write(chunk)
        progress.advance(len(chunk))
