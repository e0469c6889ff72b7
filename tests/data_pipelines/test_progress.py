from collections.abc import Callable

import pytest

from data_pipelines.progress import Progress

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time; it is 100 at first."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def set_time(time: float) -> None:
        now[0] = time

    return set_time


def test_long_step_prints_now_and_then(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    progress = Progress("reading a.csv")
    for now in (104.0, 105.0, 109.0, 111.0):
        clock(now)
        progress.report(f"at {now:.0f}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "reading a.csv: at 105 (5 s)\nreading a.csv: at 111 (11 s)\n"
    )


def test_share_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    progress = Progress("reading", total=8)
    clock(104.0)
    progress.advance(1, rows=1000)
    clock(110.0)
    progress.advance(1, rows=9000)
    clock(112.0)
    progress.advance(5, rows=0)
    clock(140.0)
    progress.advance(1, rows=30_000)
    assert capsys.readouterr().err == (
        "reading: 25%, 10,000 rows, 1,000 rows/s, 30 s left (10 s)\n"
        "reading: 100%, 40,000 rows, 1,000 rows/s (40 s)\n"
    )


def test_short_step_prints_nothing(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    progress = Progress("reading", total=2)
    progress.advance(1)
    clock(104.9)
    progress.advance(1)
    progress.done()
    assert capsys.readouterr().err == ""


def test_end_of_a_long_step_is_printed(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    progress = Progress("sorting", total=2)
    clock(106.0)
    progress.advance(1)
    clock(107.0)
    progress.advance(1)
    progress.done()
    assert capsys.readouterr().err == (
        "sorting: 50%, 6 s left (6 s)\nsorting: 100% (7 s)\n"
    )


def test_interval_and_a_total_of_nothing(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    progress = Progress("waiting", interval=0.0)
    progress.advance(0)
    assert capsys.readouterr().err == "waiting: 0% (0 s)\n"
