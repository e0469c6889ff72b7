"""Where the work of a preparation is done."""

import concurrent.futures.process
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from data_pipelines.preparation.scan import (
    PartTask,
    Scan,
    ScanReport,
    write_part,
)
from data_pipelines.raw.raw_table import Split

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
    """This machine: a pool of processes.

    The processes start with the first work that is worth more than one, and
    end with the block that the engine is the context of.

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
        self._pool: concurrent.futures.Executor | None = None

    def __enter__(self) -> "EmbeddedEngine":
        """Returns the engine."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the processes."""
        self._close()

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yields the result of every task, in their order.

        Raises:
            ChildProcessError: If a process was killed, by want of memory most
                often.
        """
        if min(self.num_workers, len(tasks)) <= 1:
            yield from map(function, tasks)
            return
        if self._pool is None:
            # Not forked: arrow has threads, and locks that they hold stay
            # held.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self.num_workers,
                multiprocessing.get_context("spawn"),
                initializer=_end_with_parent,
            )
        is_done = False
        try:
            yield from _start(
                self._pool, functools.partial(_run, function), tasks
            )
            is_done = True
        except concurrent.futures.process.BrokenProcessPool as error:
            raise ChildProcessError(
                "A worker process was killed, most often for want of memory. "
                "Try fewer --num_workers or, from the start, more --num_shards"
            ) from error
        finally:
            if not is_done:
                self._close()  # and with it the tasks that are left

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

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


def _run(function: Callable[[Task], Result], task: Task) -> Result:
    """Calls `function` in a process of the pool."""
    result = function(task)
    # Arrow keeps what it has freed, and other libraries cannot have it.
    pa.default_memory_pool().release_unused()
    return result


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
