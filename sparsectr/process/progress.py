"""How far a long step is, on standard error; the same for all commands."""

import sys
import threading

from tqdm import tqdm

# tqdm's own is for processes too, which share no bar here.
_LOCK = threading.RLock()


class Progress(tqdm):  # type: ignore[type-arg] # not subscriptable
    """tqdm: a line that is rewritten on a terminal, else a few of a log.

    It is to be closed, which shows the end. Threads may share it.

    Args:
        step: What is being done.
        total: How much there is to do.
        unit: What is counted.
        first: How much was done before.
        delay: Seconds; a step that is shorter shows nothing.
        log_interval: Seconds between two lines of a log, at least.
    """

    # tqdm's own thread would be there when processes are forked.
    monitor_interval = 0

    def __init__(
        self,
        step: str,
        total: int,
        unit: str,
        *,
        first: int = 0,
        delay: float = 5.0,
        log_interval: float = 10.0,
    ) -> None:
        is_log = not sys.stderr.isatty()
        super().__init__(
            desc=step,
            total=total,
            unit=unit,
            unit_scale=total >= 10**5,
            initial=first,
            delay=delay,
            file=_Log() if is_log else sys.stderr,
            mininterval=log_interval if is_log else 0.1,
            miniters=0,
            # Of several, on a terminal, only the first stays when it ends.
            leave=None,
            position=0 if is_log else None,
            dynamic_ncols=True,
        )

    def advance(self, amount: float, text: str = "") -> None:
        """Adds to what is done, with `text` behind."""
        with _LOCK:
            self.set_postfix_str(text, refresh=False)
            self.update(amount)


Progress.set_lock(_LOCK)


class _Log:
    """Makes a line of what tqdm would write over the one before."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
