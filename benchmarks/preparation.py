r"""How fast is a data set prepared, and in how much memory and disk?

    python -m benchmarks.preparation --num_behaviors=10000000,50000000 \
        --output=FILE.json

For each number of behaviors, makes raw Alibaba files of random rows in a
temporary folder, with the published numbers of users, ids and repeated rows to
so many behaviors, and prepares them by the command line in processes of
their own. Reports rows of the behavior log per second of the whole
preparation (impressions, sorting, vocabularies and hashing included), the
largest resident memory of all its processes together, the largest size of its
working folder, bytes per behavior of the store and of the raw log, and, from
the growth between the two largest runs, what the published 723 million
behaviors would take. The files are made; the sizes are not.

With --statistics candidates get the statistics of the data set too; with
--rounds=N each number is prepared N times with and N times without in turn,
from the same files, and the medians of both ways' seconds and processor seconds
are compared, since other work on the machine slows neighbours alike.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from absl import flags

from benchmarks.made_data.alibaba_files import (
    PUBLISHED_BEHAVIORS,
    write_made_files,
)
from benchmarks.measuring import number_flags, result_files
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.training.run_directory import environment

_INTERVAL = 0.2
"""Seconds between two looks at memory."""


class _MemoryWatch(threading.Thread):
    """Follows the resident memory of a process and of all its children."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._process = process
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(_INTERVAL):
            # Once it has ended, there is nothing to see.
            with contextlib.suppress(psutil.NoSuchProcess):
                family = self._process.children(recursive=True)
                total = sum(map(_own_bytes, [self._process, *family]))
                self.peak = max(self.peak, total)

    def stop(self) -> int:
        """Returns the largest sum of bytes that was seen."""
        self._stop_asked.set()
        self.join()
        return self.peak


def _own_bytes(process: psutil.Process) -> int:
    """Returns the bytes of memory that are a process's own.

    Pages of files that are mapped into memory are not counted: the system
    drops them when it needs the room.
    """
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:  # it has just ended
        return 0
    return memory.rss - memory.shared


def measure(
    raw_dir: Path,
    data_dir: Path,
    num_behaviors: int,
    num_workers: int,
    statistics: bool,
) -> dict[str, Any]:
    """Prepares files in another process, and removes the store.

    Args:
        raw_dir: Folder of the made files.
        data_dir: Folder of the store.
        num_behaviors: Rows of their behavior log.
        num_workers: Processes.
        statistics: Whether candidates get statistics.

    Raises:
        InputError: If the preparation fails.
    """
    raw_bytes = {path.name: path.stat().st_size for path in raw_dir.iterdir()}
    start = time.perf_counter()
    used_before = _processor_seconds()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "data_pipelines.prepare",
            "--dataset=alibaba",
            f"--raw_dir={raw_dir}",
            f"--data_dir={data_dir}",
            f"--num_workers={num_workers}",
            *(["--statistics"] if statistics else []),
        ],
        stdout=subprocess.DEVNULL,
    )
    watch = _MemoryWatch(psutil.Process(process.pid))
    watch.start()
    peak_disk = 0
    partial = data_dir.with_name("store.partial")
    while process.poll() is None:
        time.sleep(2)
        peak_disk = max(peak_disk, _size(partial))
    seconds = time.perf_counter() - start
    peak = watch.stop()
    if process.returncode:
        raise InputError(
            f"The preparation of {num_behaviors:,} behaviors failed; its "
            "message is above."
        )
    store = Store(data_dir)
    counts = store.manifest["counts"]
    behavior_bytes = sum(
        value["bytes"]
        for name, value in store.manifest["files"].items()
        if "/behaviors/" in name
    )
    result = {
        "num_behaviors": num_behaviors,
        "num_impressions": store.manifest["rows"]["impressions"]["read"],
        "num_shards": len(store.shards),
        "num_workers": num_workers,
        "statistics": store.manifest.get("statistics"),
        "seconds": round(seconds, 1),
        "processor_seconds": round(_processor_seconds() - used_before, 1),
        "behaviors_per_second": round(num_behaviors / seconds),
        "peak_memory_gib": round(peak / 2**30, 3),
        "raw_bytes": raw_bytes,
        "store_bytes": _size(data_dir),
        "peak_working_bytes": peak_disk,
        "raw_bytes_per_behavior": round(
            raw_bytes["behavior_log.csv"] / num_behaviors, 2
        ),
        "store_bytes_per_behavior": round(
            behavior_bytes / counts["behaviors"], 2
        ),
        "kept_behaviors": counts["behaviors"],
        "content": store.manifest["content"],
    }
    shutil.rmtree(data_dir)
    return result


def _processor_seconds() -> float:
    """Returns what processes that have ended have used."""
    times = os.times()
    return times.children_user + times.children_system


def compare(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how much longer runs with statistics take than those without."""
    ratios = {}
    for key in ("seconds", "processor_seconds"):
        with_, without = (
            statistics.median(
                run[key] for run in runs if bool(run["statistics"]) == is_on
            )
            for is_on in (True, False)
        )
        ratios[f"{key}_with_to_without"] = round(with_ / without, 3)
    return {"num_behaviors": runs[0]["num_behaviors"], **ratios}


def _size(folder: Path) -> int:
    total = 0
    # Not `rglob`, which fails where a folder has just been moved.
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(root, name).stat().st_size
    return total


def extrapolate(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the published log would take, from two runs' growth."""
    smaller, larger = sorted(runs, key=lambda run: run["num_behaviors"])[-2:]
    more = larger["num_behaviors"] - smaller["num_behaviors"]
    rest = PUBLISHED_BEHAVIORS - larger["num_behaviors"]

    def at_published(key: str) -> float:
        growth: float = (larger[key] - smaller[key]) / more
        return float(larger[key] + growth * rest)

    return {
        "num_behaviors": PUBLISHED_BEHAVIORS,
        "from": [smaller["num_behaviors"], larger["num_behaviors"]],
        "minutes": round(at_published("seconds") / 60, 1),
        "store_gb": round(at_published("store_bytes") / 1e9, 2),
        "working_gb": round(at_published("peak_working_bytes") / 1e9, 2),
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list(
        "num_behaviors", ["10000000", "50000000"], "Rows of the logs to make."
    )
    flags.DEFINE_integer("num_workers", 2, "Processes.", lower_bound=1)
    flags.DEFINE_boolean(
        "statistics", False, "Count statistics of candidates too."
    )
    flags.DEFINE_integer(
        "rounds",
        0,
        "With --statistics: how often to prepare without and with them in "
        "turn; 0 for once with them alone.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "folder", None, "Where to work; by default a temporary folder."
    )
    result_files.define_flags()


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    numbers = number_flags.ascending("num_behaviors")
    if values.rounds and not values.statistics:
        raise InputError("--rounds needs --statistics.")
    ways = [False, True] * values.rounds or [values.statistics]
    runs = []
    ratios = []
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        raw_dir, data_dir = Path(folder, "raw"), Path(folder, "store")
        for number in numbers:
            write_made_files(raw_dir, number)
            own = []
            for way in ways:
                own.append(
                    measure(raw_dir, data_dir, number, values.num_workers, way)
                )
                print(json.dumps(own[-1]), flush=True)
            shutil.rmtree(raw_dir)
            runs += own
            if values.rounds:
                ratios.append(compare(own))
                print(json.dumps(ratios[-1]), flush=True)
    report: dict[str, Any] = {
        "question": __doc__.splitlines()[0] if __doc__ else "",
        "data": "made: random rows in the schema of the Alibaba files",
        "runs": runs,
        "environment": environment(),
    }
    if ratios:
        report["ratios"] = ratios
    elif len(runs) > 1:
        report["published_log"] = extrapolate(runs)
        print(json.dumps(report["published_log"]))
    result_files.write(report)


if __name__ == "__main__":
    define_flags()
    command.run(main)
