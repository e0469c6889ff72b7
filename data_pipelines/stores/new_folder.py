"""A folder that is written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sparsectr.errors import InputError
from sparsectr.file_systems.partial_folder import partial_folder


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write to, which becomes `path` if nothing fails.

    Raises:
        InputError: If there is something at `path` already.
        OSError: If the disk is full or not writable.
    """
    path = path.absolute()
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays within one file system.
    with partial_folder(path.parent, f".{path.name}.partial-") as partial:
        # Not the partial one itself, which nobody else may read.
        folder = partial / path.name
        folder.mkdir()
        yield folder
        # POSIX lets a folder replace an empty one and no other.
        folder.rename(path)


def check_free(path: Path) -> None:
    """Raises InputError if a new folder cannot be made at `path`.

    Worth asking before the work that fills the folder.
    """
    if path.exists() or path.is_symlink():
        if not path.is_dir():
            raise InputError(f"{path} exists and is not a folder.")
        if any(path.iterdir()):
            raise InputError(
                f"{path} exists and is not empty; remove it or name another "
                "folder."
            )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be made: {parent} is not a folder.")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path} cannot be made: {parent} is not writable.")
