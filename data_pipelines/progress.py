"""Lines on standard error that tell how far a long step is."""

import sys
import time


class Progress:
    """Prints a line now and then, and nothing for a step that is short.

    Args:
        step: What is being done.
        interval: Seconds between two lines, and before the first.
    """

    def __init__(self, step: str, *, interval: float = 5.0) -> None:
        self.step = step
        self.interval = interval
        self._start = self._last = time.monotonic()

    def report(self, text: str) -> None:
        """Prints `text` if the last line is long enough ago."""
        now = time.monotonic()
        if now - self._last < self.interval:
            return
        self._last = now
        seconds = now - self._start
        print(
            f"{self.step}: {text} ({seconds:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
