import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data_pipelines.preparation.engine import EmbeddedEngine
from sparsectr.errors import InputError


def _square(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return number * number


def _process(number: int) -> int:
    del number
    time.sleep(0.05)
    return os.getpid()


def _refuse(number: int) -> int:
    time.sleep(0.05 * (number % 2 == 0))
    if number == 5:
        raise InputError("file.csv, line 3: bad")
    return number


def _kill_oneself(number: int) -> int:
    if number == 1 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_process_is_this_one() -> None:
    engine = EmbeddedEngine(1)
    assert list(engine.map(_square, range(5))) == [0, 1, 4, 9, 16]
    assert set(engine.map(_process, range(3))) == {os.getpid()}
    assert list(engine.map(_square, [])) == []
    # One task is not worth a process.
    assert list(EmbeddedEngine(2).map(_process, [0])) == [os.getpid()]
    with pytest.raises(InputError, match=r"file\.csv, line 3: bad"):
        list(engine.map(_refuse, range(6)))


def test_several_processes_keep_the_order() -> None:
    engine = EmbeddedEngine(2)
    assert engine.name == "embedded"
    found = engine.map(_refuse, range(9))
    assert [next(found) for _ in range(5)] == list(range(5))
    with pytest.raises(InputError, match=r"file\.csv, line 3: bad"):
        next(found)


def test_processes_are_those_of_the_step_before() -> None:
    with EmbeddedEngine(2) as engine:
        first = set(engine.map(_process, range(8)))
        assert first == set(engine.map(_process, range(8)))
        assert os.getpid() not in first
        # After an error there are new ones, without the tasks that were left.
        with pytest.raises(InputError):
            list(engine.map(_refuse, range(9)))
        assert first.isdisjoint(engine.map(_process, range(8)))
    _wait(lambda: not any(_is_running(process) for process in first))


def test_a_killed_process() -> None:
    # No `InputError`: what has been done is kept, and can be gone on with.
    with pytest.raises(ChildProcessError, match="want of memory"):
        list(EmbeddedEngine(2).map(_kill_oneself, range(3)))


def test_number_of_processes_is_checked() -> None:
    with pytest.raises(ValueError, match="Received: num_workers=0"):
        EmbeddedEngine(0)


def stay(task: tuple[str, float]) -> None:
    """Says which process it is in, and stays there for some seconds."""
    folder, seconds = task
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(seconds)


_PARENT = """
from data_pipelines.preparation.engine import EmbeddedEngine
from tests.data_pipelines.test_engine import stay
if __name__ == "__main__":
    # One process works, the other waits for work.
    list(EmbeddedEngine(2).map(stay, [({folder!r}, 600), ({folder!r}, 0.0)]))
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(
    repository: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    program = tmp_path / "program.py"
    folder = tmp_path / "processes"
    folder.mkdir()
    program.write_text(_PARENT.format(folder=str(folder)))
    parent = subprocess.Popen(
        [sys.executable, program],
        env={"PYTHONPATH": str(repository)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait(lambda: len(list(folder.iterdir())) == 2)
    time.sleep(0.2)
    if stop == signal.SIGINT:
        os.killpg(parent.pid, stop)  # as a terminal does
    else:
        parent.kill()
    _, stderr = parent.communicate(timeout=120)
    # One traceback, that of the parent: the processes say nothing.
    assert stderr.count("KeyboardInterrupt") == int(stop == signal.SIGINT)
    processes = [int(path.name) for path in folder.iterdir()]
    _wait(lambda: not any(_is_running(process) for process in processes))


def _is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
