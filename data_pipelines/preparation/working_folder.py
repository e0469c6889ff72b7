"""The folder in which a preparation is done, until it is done.

It holds `plan.json`, what was asked for, and `lock`, which one process at a
time holds. `lock` is made first and removed last, so that a folder without it
is somebody else's; without `plan.json`, what is beside it is worth nothing.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsectr.errors import InputError
from sparsectr.file_systems.process_lock import ProcessLock

PLAN = "plan.json"
LOCK = "lock"


def folder_of(data_dir: Path) -> Path:
    """Returns the folder in which the store `data_dir` is prepared."""
    return data_dir.with_name(f"{data_dir.name}.partial")


@contextlib.contextmanager
def working_folder(
    folder: Path, plan: Mapping[str, Any], *, resume: bool
) -> Iterator[None]:
    """Makes `folder`, or opens the one of an interrupted preparation.

    It is removed in the end, and after an `InputError`, since then the raw
    files have to change and with them all that was read. It stays if the
    process is killed or interrupted, or the disk is full.

    Args:
        folder: The folder.
        plan: What is asked for, as JSON has it.
        resume: Whether to go on with what is there already.

    Raises:
        InputError: If another process is at work there, if there is an
            interrupted preparation and `resume` is false, or it was asked
            for something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / LOCK).exists():
        raise InputError(
            f"{folder} is where the work is done, but it holds something "
            "else. Move it away."
        )
    with contextlib.closing(ProcessLock(folder / LOCK, str(folder))):
        if (folder / PLAN).exists():
            _check_plan(folder, plan, resume=resume)
        else:
            _empty(folder)
            hidden = folder / f".{PLAN}.partial"
            hidden.write_text(json.dumps(plan, indent=2) + "\n", "utf-8")
            hidden.replace(folder / PLAN)
        try:
            yield
        except InputError:
            remove(folder)
            raise
        except (OSError, KeyboardInterrupt) as error:
            error.add_note("Go on with --resume.")
            if isinstance(error, OSError) and error.errno is not None:
                # Arrow does not say where a disk is full.
                error.filename = error.filename or str(folder)
            raise
        remove(folder)


def _check_plan(folder: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
    if not resume:
        raise InputError(
            f"{folder} holds a preparation that was interrupted. Finish it "
            "with --resume, or remove that folder."
        )
    found = json.loads((folder / PLAN).read_text("utf-8"))
    for key, value in json.loads(json.dumps(plan)).items():
        if found.get(key) != value:
            raise InputError(
                f"--resume cannot go on with {folder}: its {key} differ "
                "from what is asked for now. Ask for the same, or remove "
                "that folder."
            )


def remove(folder: Path) -> None:
    """Removes a working folder that this process has locked."""
    # First, so that nobody goes on with what is half removed.
    (folder / PLAN).unlink(missing_ok=True)
    _empty(folder)
    (folder / LOCK).unlink()
    folder.rmdir()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
