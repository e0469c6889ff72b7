"""Waiting until all processes of a cluster are there.

TensorFlow waits too, but says nothing, and lets no other thread say it.
"""

import socket
import sys
import time
from collections.abc import Sequence

from sparsectr.errors import InputError
from sparsectr.training.cluster_spec import VARIABLE, ClusterSpec, Task

_LOOK_SECONDS = 0.5
"""Between two tries to reach who is missing."""

_LINE_SECONDS = 15.0
"""Between two lines that say so."""


def wait_for_others(
    spec: ClusterSpec, wait: float, line_every: float = _LINE_SECONDS
) -> None:
    """Returns when this process has reached all others.

    Meanwhile it answers at its own port, which is free again afterwards. One
    that has gone on answers there by TensorFlow.

    Args:
        spec: Who they are.
        wait: Seconds after which to give up.
        line_every: Seconds between two lines that say who is missing.

    Raises:
        InputError: If the port of this process cannot be used.
        ConnectionError: If some were not reached in time. It names them.
    """
    with _listen(spec.own):
        missing = spec.others
        began = line = time.monotonic()
        while missing := [task for task in missing if not task.answers()]:
            now = time.monotonic()
            if now - began > wait:
                raise ConnectionError(
                    f"{spec.own} has waited {wait:.0f} s for "
                    f"{_names(missing)}. Are all started, and can they reach "
                    f"each other at the addresses of {VARIABLE}?"
                )
            if now - line > line_every:
                line = now
                print(
                    f"{spec.own} waits for {_names(missing)}: "
                    f"{now - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(_LOOK_SECONDS)


def _listen(own: Task) -> socket.socket:
    """Opens the port, which TensorFlow would share with whoever has it."""
    is_dual = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", own.port),
            family=socket.AF_INET6 if is_dual else socket.AF_INET,
            backlog=1024,
            dualstack_ipv6=is_dual,
        )
    except OSError as error:
        raise InputError(
            f"{own}: port {own.port} of {VARIABLE} cannot be used: "
            f"{error.strerror}. Is another run on it?"
        ) from error


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(map(str, tasks))
