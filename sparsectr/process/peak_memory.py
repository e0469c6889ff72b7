"""How much memory this process has held."""

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Returns the peak of this process's resident memory.

    On Linux not `ru_maxrss`, which in a process that another has started
    begins with the peak of that one.
    """
    if _STATUS.exists():
        text = _STATUS.read_text("ascii")
        match = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        if match is not None:
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
