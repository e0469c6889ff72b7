import re
import sys
import threading
from collections.abc import Callable

import pytest
from tqdm import TMonitor

from sparsectr.process.progress import Progress

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time; it is 100 at first."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def set_time(time: float) -> None:
        now[0] = time

    return set_time


def test_log_of_a_long_step(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with Progress("reading", 8, "part") as progress:
        for second in range(1, 9):
            clock(100 + 4 * second)
            progress.advance(1, f"{1000 * second:,} rows")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    lines = captured.err.splitlines()
    # One each ten seconds, of parts that take four, and one at the end.
    assert [line.split("|")[2] for line in lines] == [
        " 3/8 [00:12<00:20,  4.00s/part, 3,000 rows]",
        " 6/8 [00:24<00:08,  4.00s/part, 6,000 rows]",
        " 8/8 [00:32<00:00,  4.00s/part, 8,000 rows]",
    ]
    assert lines[0].startswith("reading:  38%|")


def test_short_step_shows_nothing(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with Progress("reading", 2, "part") as progress:
        progress.advance(1)
        clock(104.9)
        progress.advance(1)
    assert capsys.readouterr().err == ""


def test_a_run_shows_start_and_end_however_short(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with Progress("train", 54, "step", first=50, delay=0) as progress:
        clock(102.0)
        progress.advance(4, "loss 0.5")
    start, end = capsys.readouterr().err.splitlines()
    assert " 50/54 [" in start
    # The rate is that of the four steps.
    assert end.endswith("| 54/54 [00:02<00:00,  2.00step/s, loss 0.5]")


def test_large_numbers_are_short(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    for unit in ("B", "row"):
        with Progress("copy", 3_000_000, unit, delay=0) as progress:
            clock(101.0)
            progress.advance(1_500_000)
        clock(100.0)
    ends = capsys.readouterr().err.splitlines()[1::2]
    assert "1.50M/3.00M [00:01<00:01, 1.50MB/s]" in ends[0]
    assert "1.50M/3.00M [00:01<00:01, 1.50Mrow/s]" in ends[1]


def test_terminal_line_is_rewritten(
    capsys: pytest.CaptureFixture[str],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("train", 3, "step", delay=0) as progress:
        for second in (1, 2, 3):
            clock(100 + second)
            progress.advance(1)
    shown = capsys.readouterr().err
    assert re.findall(r"\r.*? (\d)/3 ", shown) == ["0", "1", "2", "3", "3"]
    assert shown.count("\n") == 1
    assert shown.endswith("\n")


def test_an_error_is_the_last_word(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    def fail() -> None:
        with Progress("train", 3, "step", delay=0) as progress:
            clock(101.0)
            progress.advance(1)
            raise ValueError("too bad")

    with pytest.raises(ValueError, match="too bad"):
        fail()
    print("error", file=sys.stderr)
    *_, end, error = capsys.readouterr().err.splitlines()
    assert "| 1/3 [" in end
    assert error == "error"


def test_no_thread_of_its_own() -> None:
    with Progress("train", 3, "step"):
        kinds = [type(thread) for thread in threading.enumerate()]
    assert TMonitor not in kinds
