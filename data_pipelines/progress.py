"""Lines on standard error that tell how far a long step is."""

import sys
import time


class Progress:
    """Prints a line now and then, and nothing for a step that is short.

    Args:
        step: What is being done.
        total: How much there is to do, where that is known.
        interval: Seconds between two lines, and before the first.
    """

    def __init__(
        self, step: str, *, total: int = 0, interval: float = 5.0
    ) -> None:
        self.step = step
        self.total = total
        self.interval = interval
        self._start = self._last = time.monotonic()
        self._advanced = self._rows = 0
        self._has_printed = False

    def report(self, text: str) -> None:
        """Prints `text` if the last line is long enough ago."""
        now = time.monotonic()
        if now - self._last < self.interval:
            return
        self._print(text, now)

    def advance(self, amount: int, *, rows: int = 0) -> None:
        """Adds to what has been done and reports it.

        Args:
            amount: How much of `total` was done.
            rows: Rows that this was, to tell how fast it goes.
        """
        self._advanced += amount
        self._rows += rows
        self.report(self._state())

    def done(self) -> None:
        """Reports the end of a step that was reported on before."""
        if self._has_printed:
            self._print(self._state(), time.monotonic())

    def _state(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        share = self._advanced / max(self.total, 1)
        parts = [f"{share:.0%}"]
        if self._rows:
            parts.append(f"{self._rows:,} rows")
            parts.append(f"{self._rows / seconds:,.0f} rows/s")
        if 0 < share < 1:
            parts.append(f"{seconds / share - seconds:.0f} s left")
        return ", ".join(parts)

    def _print(self, text: str, now: float) -> None:
        self._last = now
        self._has_printed = True
        print(
            f"{self.step}: {text} ({now - self._start:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
