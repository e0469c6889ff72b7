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

import psutil

from sparsectr.errors import InputError


class ServerProcess(NamedTuple):
    """A server that is up.

    Attributes:
        address: host:port of its gRPC interface.
        pid: Its process.
    """

    address: str
    pid: int

    def resident_bytes(self) -> int:
        """Returns its resident memory."""
        return psutil.Process(self.pid).memory_info().rss

    def processor_seconds(self) -> float:
        """Returns how long it has computed."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system


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
            "export.stand_in_server",
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
