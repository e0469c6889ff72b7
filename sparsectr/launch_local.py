r"""Trains with several workers on this machine, to try what hosts will do.

    python -m sparsectr.launch_local --workers=2 -- \
        --dataset=movielens --data_dir=data/movielens --workdir=runs/movielens

Behind `--` stand the flags of sparsectr.train. Each worker is a process of its
own with a port of its own and the TF_CONFIG that several hosts would have, and
shares the processor with the others: it is no faster than one. Lines of workers
other than the chief begin with their names. When one fails the others end
themselves.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from absl import flags

from sparsectr.process import command
from sparsectr.training.cluster_spec import VARIABLE


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)


def main(argv: list[str]) -> int:
    """Runs the command."""
    processes = start_workers(argv[1:], flags.FLAGS.workers)
    threads = [
        threading.Thread(target=_print, args=(rank, stream, target))
        for rank, process in enumerate(processes)
        for stream, target in (
            (process.stdout, sys.stdout),
            (process.stderr, sys.stderr),
        )
    ]
    try:
        for thread in threads:
            thread.start()
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:
        # The terminal has told them too.
        codes = [process.wait() for process in processes]
        raise
    finally:
        for thread in threads:
            thread.join()
    failed = [code for code in codes if code]
    # That of a process which was killed is negative.
    return abs(failed[0]) if failed else 0


def start_workers(
    arguments: Sequence[str], num_workers: int
) -> list[subprocess.Popen[str]]:
    """Starts workers on ports that are free.

    Args:
        arguments: Flags of sparsectr.train.
        num_workers: How many.

    Returns:
        The processes, the chief first, with pipes.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(num_workers)]
    processes = []
    for rank in range(num_workers):
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": rank},
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "sparsectr.train", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, VARIABLE: json.dumps(cluster)},
            )
        )
    return processes


def _free_ports(count: int) -> list[int]:
    # All are held at once, so that they differ.
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("localhost", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _print(rank: int, stream: TextIO, target: TextIO) -> None:
    with stream:
        for line in stream:
            target.write(f"worker {rank}: {line}" if rank else line)
            target.flush()


if __name__ == "__main__":
    define_flags()
    command.run(main, arguments="what to train (behind --)")
