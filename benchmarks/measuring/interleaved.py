"""Times several things in turn, and says by how much one is faster."""

import dataclasses
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import psutil

Name = TypeVar("Name", bound=Hashable)

_NUM_RESAMPLES = 2000
_COVERED = (0.025, 0.975)

# Above that share of the machine, others disturb a measurement visibly.
_BUSY_SHARE = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """How often each thing is run.

    Args:
        num_rounds: Rounds; each runs every thing, in random order.
        seconds: How long a thing is run in its turn, at least; one call
            before that is not timed, since the others have emptied the
            caches.
    """

    num_rounds: int
    seconds: float


def take_turns(
    things: Mapping[Name, Callable[[], object]], turns: Turns
) -> dict[Name, list[float]]:
    """Returns seconds of a call, one figure (a median) for each round.

    Args:
        things: What is compared. A call returns when its work is done, and
            whatever it compiles is compiled already.
        turns: How often.
    """
    generator = np.random.default_rng(0)
    names = list(things)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for _ in range(turns.num_rounds):
        for index in generator.permutation(len(names)):
            name = names[index]
            seconds[name].append(_turn(things[name], turns.seconds))
    return seconds


def _turn(thing: Callable[[], object], at_least: float) -> float:
    thing()
    measured: list[float] = []
    while not measured or sum(measured) < at_least:
        start = time.perf_counter()
        thing()
        measured.append(time.perf_counter() - start)
    return float(np.median(measured))


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles."""
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "lower_quartile": low, "upper_quartile": high}


def speedup(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times as fast the second is, round by round.

    Returns:
        `median` of the ratios of the rounds and its 95 % `interval` (from
        resampled rounds); the median is `None` where the interval spans 1,
        and nothing can be said of which is faster.
    """
    ratios = np.asarray(slow) / np.asarray(fast)
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(ratios), size=(_NUM_RESAMPLES, len(ratios)))
    low, high = np.quantile(
        np.median(ratios[chosen], axis=1), _COVERED
    ).tolist()
    return {
        "median": None if low <= 1.0 <= high else float(np.median(ratios)),
        "interval": [low, high],
    }


class MachineLoad:
    """What the machine did besides this process. Needs Linux.

    Counts from when it is made.
    """

    def __init__(self) -> None:
        self._average = os.getloadavg()[0]
        self._busy, self._own = _busy_seconds(), _own_seconds()
        self._start = time.monotonic()

    def read(self) -> dict[str, Any]:
        """Returns the load until now.

        Returns:
            `load_average_before`, `others_share` (processor time that others
            took, of all there was), and `busy`, whether that is too much for
            figures to be trusted.
        """
        passed = time.monotonic() - self._start
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        share = max(0.0, others / (passed * (os.cpu_count() or 1)))
        return {
            "load_average_before": self._average,
            "others_share": share,
            "busy": share > _BUSY_SHARE,
        }


def _busy_seconds() -> float:
    """Processor time of all processes since the machine was started."""
    times = psutil.cpu_times()
    # What a guest takes is part of `user`.
    idle = times.idle + times.iowait + times.guest + times.guest_nice
    return sum(times) - idle


def _own_seconds() -> float:
    times = os.times()
    return sum(times[:4])
