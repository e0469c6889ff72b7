"""Whole files between this machine and a remote store, several at once."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import (
    BUFFER_BYTES,
    FileSystem,
    Status,
)
from sparsectr.file_systems.paths import join
from sparsectr.progress import Progress

_THREADS = 8

_T = TypeVar("_T")


def fetch(files: FileSystem, wanted: Mapping[str, tuple[Status, Path]]) -> None:
    """Copies remote files to this machine, each whole or not at all.

    A copy gets the time of its original, by which `is_current` knows it.

    Args:
        files: What serves them.
        wanted: What each URL is and where it goes.

    Raises:
        FileNotFoundError: If one is not there any more.
        InputError: If one cannot be read.
        OSError: If one cannot be written.
    """
    progress = Progress("fetch", sum(s.size for s, _ in wanted.values()), "B")

    def copy(url: str) -> None:
        status, target = wanted[url]
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        start = time.time()
        done = 0
        with (
            files.errors(url),
            files.open(url) as source,
            partial.open("wb") as file,
        ):
            while chunk := source.read(BUFFER_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress.advance(len(chunk))
        if done != status.size:
            # Replaced since it was listed; the next listing will tell.
            raise FileNotFoundError(2, "it changed while it was read", url)
        if status.modified < start - SETTLED_SECONDS:
            os.utime(partial, ns=(_nanoseconds(status), _nanoseconds(status)))
        partial.replace(target)

    with progress:
        _in_parallel(copy, wanted)


SETTLED_SECONDS = 2
"""A file that was younger is fetched again: the time of a remote file is in
whole seconds, so another one may have followed it in the same second. Clocks
that differ by more than this can hide that, if the sizes are equal too."""


def is_current(path: Path, status: Status) -> bool:
    """Returns whether `path` is what `fetch` made of a remote file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (found.st_size, found.st_mtime_ns) == (
        status.size,
        _nanoseconds(status),
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
    progress = Progress(
        "send", sum((folder / name).stat().st_size for name in names), "B"
    )

    def copy(name: str) -> None:
        target = join(url, name)
        try:
            with (
                (folder / name).open("rb") as source,
                files.errors(target),
                files.create(target) as file,
            ):
                while chunk := source.read(BUFFER_BYTES):
                    file.write(chunk)
                    progress.advance(len(chunk))
        except FileNotFoundError as error:
            if error.filename != target:
                raise
            raise InputError(
                f"{target} cannot be written: there is no such bucket or root."
            ) from error

    with progress:
        _in_parallel(copy, sorted(names.difference(markers)))
        for name in markers:
            copy(name)


def _nanoseconds(status: Status) -> int:
    return status.modified * 10**9


def _in_parallel(action: Callable[[_T], None], items: Iterable[_T]) -> None:
    """Calls `action` on each item; after an error on no more of them."""
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
