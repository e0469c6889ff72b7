"""The flags --output and --plot of a benchmark, and what they write."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory


def define_flags(*, plot: bool = False) -> None:
    """Defines --output, and --plot if there is one."""
    flags.DEFINE_string("output", None, "JSON file to write.")
    if plot:
        flags.DEFINE_string("plot", None, "PNG file to draw to.")


def check_flags() -> None:
    """Refuses what cannot be written: before the work, and not after it.

    Raises:
        InputError: If a file's folder is not there.
    """
    for name in ("output", "plot"):
        value = flags.FLAGS[name].value if name in flags.FLAGS else None
        if value and not (folder := Path(value).parent).is_dir():
            raise InputError(f"--{name}: {folder} is not a folder.")


def write(result: Mapping[str, Any]) -> None:
    """Writes the file that --output names, whole or not at all."""
    if flags.FLAGS.output:
        path = Path(flags.FLAGS.output)
        RunDirectory(path.parent).write_json(path.name, result)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all.

    Args:
        path: The file, replaced if it exists.
        write: Writes it, to a name that it is given.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
