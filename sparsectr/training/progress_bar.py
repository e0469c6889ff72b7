"""A progress bar for steps: one line that is rewritten, or a log."""

import sys
import time


class ProgressBar:
    """Shows how far a loop is, how fast and how long still.

    On a terminal the line is rewritten; elsewhere a line is printed at most
    every ten seconds.

    Args:
        name: What runs.
        total: Units in all.
        unit: What is counted.
        first: Units that were done before.
    """

    def __init__(
        self, name: str, total: int, unit: str, first: int = 0
    ) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._first = first
        self._start = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._interval = 0.2 if self._is_terminal else 10.0
        self._shown = 0.0

    def update(self, done: int, text: str) -> None:
        """Shows that `done` units are done, with `text` behind."""
        now = time.monotonic()
        if now - self._shown < self._interval and done < self._total:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self._total - done) / rate if rate > 0 else 0.0
        filled = 20 * done // max(self._total, 1)
        line = (
            f"{self._name} [{'=' * filled}{' ' * (20 - filled)}] "
            f"{done}/{self._total} - {rate:.1f} {self._unit}/s - "
            f"{_clock(left)} left"
        )
        line = f"{line} - {text}" if text else line
        end = "" if self._is_terminal else "\n"
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._is_terminal:
            print(file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{rest:02d}"
        if hours
        else f"{minutes}:{rest:02d}"
    )
