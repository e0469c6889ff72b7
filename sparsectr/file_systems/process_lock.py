"""A lock that one process at a time holds, and that says who has it."""

import fcntl
import os
import platform
from pathlib import Path
from typing import IO

from sparsectr.errors import InputError


def lock_for_process(path: Path, what: str) -> IO[str]:
    """Returns the open file of a lock, which this process has now.

    Closing it lets others have the lock, and so does the end of the process,
    even by a kill. The file stays: removing it would let two have it.

    Args:
        path: File of the lock; its folder is there.
        what: What is locked, for the error.

    Raises:
        InputError: If another process has it. It names that process.
        OSError: If the file cannot be written.
    """
    # Not "w": what the owner wrote must stay.
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "Another process"
        file.close()
        raise InputError(
            f"{owner} is at work on {what}. Wait for it, or stop it."
        ) from error
    except OSError:
        file.close()
        raise
    file.truncate(0)
    print(f"Process {os.getpid()} on {platform.node()}", file=file, flush=True)
    return file
