"""Peak memory of a contender, in a process of its own. Needs Linux.

Two figures. The peak of the resident memory of the process in a later call,
above what it held before the first one: model, optimizer, batches are in
both. TensorFlow keeps what it has allotted, so that the memory between calls
is no measure to compare with. What compiling leaves behind, and the rows of
the optimizer that are touched for the first time, count too; they are the
larger part where a program is small, and its share of full attention's is
lower than this figure tells. And, where XLA compiles the call, the compiler's
own: what it allots to results and to everything in between, weights and batch
not counted. XLA does not compile the update of the tables, so that the
compiler does not see that.
"""

import ctypes
import gc
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring.new_process import in_new_process
from sparsectr.errors import InputError
from sparsectr.process.peak_memory import peak_resident_bytes

# A line for each buffer that the compiler allots. Those of parameters belong
# to the caller, and constants to the program.
_ALLOCATION = re.compile(r"^allocation \d+: .*?size (\d+)(.*):$", re.MULTILINE)
_BUFFERS = "*buffer-assignment.txt"


def measure_in_new_process(
    contender: str, shape: Any, mode: str, execution: str
) -> dict[str, int]:
    """Returns bytes by kind of figure: "resident", and "compiler" for XLA.

    Args:
        contender: One of `contenders.CONTENDERS`.
        shape: `contenders.Shape`.
        mode: One of `contenders.MODES`.
        execution: One of `contenders.EXECUTIONS`.

    Raises:
        InputError: If the process was killed, as for want of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        return in_new_process(
            _measure, contender, shape, mode, execution, folder
        )


def _measure(
    contender: str, shape: Any, mode: str, execution: str, folder: str
) -> dict[str, int]:
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            f"--xla_dump_to={folder}",
            "--xla_dump_hlo_as_text",
        ]
    )
    from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    from benchmarks.attention import contenders

    model = contenders.model_of(contender, shape)
    batches = contenders.batches_of(shape)
    call = contenders.make_call(
        model, contender, "model", mode, execution, batches
    )
    found = {"resident": _resident_above(call)}
    if execution == "xla":
        found["compiler"] = _compiler_bytes(Path(folder))
    return found


def _resident_above(call: Any) -> int:
    _give_back()
    before = psutil.Process().memory_info().rss
    call()  # compiles
    _give_back()
    # Linux begins the peak anew (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    call()
    return max(0, peak_resident_bytes() - before)


def _give_back() -> None:
    """Returns memory that was freed, by compilation say, to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _compiler_bytes(folder: Path) -> int:
    """Returns what XLA allots to the largest program that it compiled."""
    programs = [
        sum(
            int(size)
            for size, kind in _ALLOCATION.findall(path.read_text("utf-8"))
            if "parameter" not in kind and "constant" not in kind
        )
        for path in folder.glob(_BUFFERS)
    ]
    if not programs:
        raise InputError("XLA wrote no buffer assignment; is it loaded?")
    return max(programs)
