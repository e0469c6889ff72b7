"""A folder to work in, which does not outlive its process for ever."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def partial_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a new folder, which is removed in the end.

    What processes have left that were killed is removed too: each locks its
    folder, and a lock ends with its process. Where a file system cannot lock
    folders (NFS), theirs stay.

    Args:
        parent: Where the folder is made.
        prefix: Begins the names of all such folders there.

    Raises:
        OSError: If it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        # Else another process could take a folder for left that is just made.
        with contextlib.ExitStack() as while_made:
            _lock(parent, fcntl.LOCK_EX, while_made)
            for path in parent.iterdir():
                if path.name.startswith(prefix):
                    _remove_if_left(path)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            _lock(folder, fcntl.LOCK_EX, stack)
        yield folder


def _remove_if_left(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        if _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB, stack):
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path, operation: int, stack: contextlib.ExitStack) -> bool:
    """Locks a folder until the end of `stack`; returns whether it could."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, operation)
    except OSError:  # in use, gone, no folder, or no such locks here
        return False
    return True
