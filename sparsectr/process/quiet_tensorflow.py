"""TensorFlow without its notes to its own developers."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} "
    # On a machine without a GPU.
    rb"|E\d{4} .*failed call to cuInit"
)

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow with warnings and notes off, errors on.

    What it prints otherwise (kernels it was built with, how it renames
    tensors, that a step was traced for a second length) would bury the lines
    that a user reads. `TF_CPP_MIN_LOG_LEVEL=0` shows what C++ prints.
    """
    with without_notes():
        import tensorflow as tf

        if not _NVIDIA_DRIVER.exists():
            # It looks for a GPU once, and says that it found none. Where
            # there is one, a process may fork before it is looked for.
            tf.config.list_physical_devices()
    from absl import logging

    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.ERROR)


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Leaves out the notes that C++ prints while TensorFlow is loaded.

    The variable has no effect on them: it is read after the first ones. All
    else on standard error is shown at the end.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if level in ("0", "1") or sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    standard_error = os.dup(2)
    with _kept_back() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            kept.seek(0)
            for line in kept:
                if not _NOTE.match(line):
                    os.write(2, line)


def _kept_back() -> BinaryIO:
    """Returns a file that needs no disk, where the system has them."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def reason_of(error: Exception) -> str:
    """Returns what an error of TensorFlow says, in one line.

    Its name of the operation that failed is left out, and so is its stack.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\{\{.*?\}\}\s*", "", lines[0])
