"""The stand-in for TensorFlow Serving in a process of its own, to be timed.

It computes with the same library, but answers in Python, so its times are not
those of a real server.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sparsectr.errors import InputError


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process. Needs Linux."""
    path = Path(f"/proc/{pid}/status")
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise InputError(f"{path} names no VmRSS.")


class ServerProcess(NamedTuple):
    """A server that is up.

    Attributes:
        address: host:port of its gRPC interface.
        pid: Its process.
    """

    address: str
    pid: int

    def resident_bytes(self) -> int:
        """Returns its resident memory. Needs Linux."""
        return resident_bytes(self.pid)

    def processor_seconds(self) -> float:
        """Returns how long it has computed. Needs Linux."""
        text = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        # The name of the program, in brackets, may have blanks.
        fields = text.rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")


class ServerLoad:
    """What part of the machine a server took, since this was made.

    Args:
        process: The server; `None` for none here.
    """

    def __init__(self, process: ServerProcess | None) -> None:
        self._process = process
        self._before = process.processor_seconds() if process else 0.0
        self._start = time.monotonic()

    def share(self) -> float:
        """Returns its share of the time of all processors until now."""
        if self._process is None:
            return 0.0
        passed = time.monotonic() - self._start
        taken = self._process.processor_seconds() - self._before
        return taken / (passed * (os.cpu_count() or 1))


@contextlib.contextmanager
def server_process(version: Path) -> Iterator[ServerProcess]:
    """Serves a version by gRPC on a free port of loopback.

    Args:
        version: Folder of the version, whose name is its number.

    Raises:
        InputError: If it does not start.
    """
    # It ends when its input does, so with this process, however this one ends.
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "export.serving_double",
            f"--version={version}",
        ],
        env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        addresses = process.stdout.readline().split() if process.stdout else []
        if not addresses:
            raise InputError(
                "The server did not start; what it printed is above."
            )
        try:
            yield ServerProcess(addresses[0], process.pid)
        finally:
            if process.stdin:
                process.stdin.close()
