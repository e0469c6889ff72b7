"""What is expensive to make, made once for all processes of pytest-xdist."""

import fcntl
import os
import pathlib
from collections.abc import Callable

import pytest


def made_once(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    make: Callable[[pathlib.Path], object],
) -> pathlib.Path:
    """Returns a folder that tests only read.

    Args:
        tmp_path_factory: The fixture.
        name: Path of the folder, in one that the processes share.
        make: Fills the folder, in the process that needs it first.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "made" / name
    folder.mkdir(parents=True, exist_ok=True)
    # The others wait. One that fails leaves it to the next to try anew.
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_made = folder.with_name(f"{folder.name}.made")
        if not is_made.exists():
            make(folder)
            is_made.touch()
    return folder
