"""Where the work of a preparation is done."""

import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from data_pipelines.raw_table import Split
from data_pipelines.scan import PartTask, Scan, ScanReport, write_part

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs functions of modules on tasks, both of which can be pickled."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yields the result of every task, in their order."""

    def shuffle(
        self, scan: Scan, splits: Sequence[Split], folder: Path
    ) -> Iterator[ScanReport]:
        """Sends the rows of a table to their shards.

        They stand then in `folder/<any>/__shard=<n>/`, as Arrow or Parquet
        files. A shuffle that is there already is not made again.
        """


class EmbeddedEngine:
    """This machine: a pool of processes and Arrow's partitioned writer.

    Args:
        num_workers: Processes that work at once; 1 to work in this one.
    """

    def __init__(self, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(
                "`num_workers` must be at least 1. "
                f"Received: num_workers={num_workers}"
            )
        self.num_workers = num_workers
        self.name = "embedded"

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yields the result of every task, in their order.

        Raises:
            ChildProcessError: If a process was killed, by want of memory most
                often.
        """
        num_workers = min(self.num_workers, len(tasks))
        if num_workers <= 1:
            yield from map(function, tasks)
            return
        # Not forked: arrow has threads, and locks that they hold stay held.
        context = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(
            num_workers, context, initializer=_end_with_parent
        )
        try:
            yield from _start(pool, function, tasks)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise ChildProcessError(
                "A worker process was killed, most often for want of memory. "
                "Try fewer --num_workers or, from the start, more --num_shards"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def shuffle(
        self, scan: Scan, splits: Sequence[Split], folder: Path
    ) -> Iterator[ScanReport]:
        """Sends the rows of a table to their shards, part by part."""
        tasks = [
            PartTask(
                scan=scan, split=split, folder=folder / f"part-{index:05d}"
            )
            for index, split in enumerate(splits)
        ]
        return self.map(write_part, tasks)


def _start(
    pool: concurrent.futures.Executor,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
) -> Iterator[Result]:
    """Starts the processes, which inherit that interrupts have to wait.

    Else one that is still importing would print a traceback of its own.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.map(function, tasks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_with_parent() -> None:
    """Makes a worker silent when it is interrupted, and end with its parent.

    A worker whose parent was killed would go on writing where a resumed
    preparation writes too, and then wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
