"""A finished folder to a remote place."""

from collections.abc import Sequence
from pathlib import Path

from sparsectr.errors import InputError
from sparsectr.file_systems.paths import file_system
from sparsectr.file_systems.transfer import send


def publish(
    folder: Path, url: str, last: Sequence[str] = ("manifest.json",)
) -> None:
    """Copies a folder to a remote place that is free.

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
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    ]
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
