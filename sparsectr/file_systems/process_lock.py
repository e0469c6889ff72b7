"""A lock that one process at a time holds, and that says who has it."""

import fcntl
import os
import platform
import weakref
from pathlib import Path

from sparsectr.errors import InputError


class ProcessLock:
    """A lock, held from the start until `close` or the end of the process.

    A kill ends it too. The file stays: removing it would let two have it.

    Args:
        path: File of the lock; its folder is there.
        what: What is locked, for the error.

    Raises:
        InputError: If another process has it. It names that process.
        OSError: If the file cannot be written.
    """

    def __init__(self, path: Path, what: str) -> None:
        # No file object, which would warn if it went with the lock.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip()
            self.close()
            raise InputError(
                f"{owner or 'Another process'} is at work on {what}. Wait for "
                "it, or stop it."
            ) from error
        os.truncate(descriptor, 0)
        owner = f"Process {os.getpid()} on {platform.node()}\n"
        os.write(descriptor, owner.encode())

    def close(self) -> None:
        """Lets others have it."""
        self._close()
