"""Times every request of several things in turn, for percentiles."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measuring.interleaved import Name

PERCENTILES = (50, 90, 99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """What is timed.

    Args:
        call: Serves the n-th request and returns when the answer is there.
        seconds: A turn ends after so long, however many requests it has
            served (one at least); `None` for no limit. Then a request takes
            so long that empty caches do not show, and all are timed.
    """

    call: Callable[[int], object]
    seconds: float | None = None


def time_requests(
    things: Mapping[Name, Timed], num_requests: int, num_rounds: int
) -> dict[Name, list[list[float]]]:
    """Returns seconds of every request, a list for each round.

    Each round gives every thing a turn, in random order. The first request of
    a turn without a limit is not timed, since the others have emptied the
    caches; nor is one more before the first round, which compiles and allots.

    Args:
        things: By name.
        num_requests: Requests that are timed of each, over all rounds.
        num_rounds: Rounds.
    """
    generator = np.random.default_rng(0)
    names = list(things)
    counts = _shares(num_requests, num_rounds)
    seconds: dict[Name, list[list[float]]] = {name: [] for name in names}
    for thing in things.values():
        if thing.seconds is None:
            thing.call(0)
    for count in counts:
        for index in generator.permutation(len(names)):
            name = names[index]
            seconds[name].append(_turn(things[name], count))
    return seconds


def _shares(total: int, parts: int) -> list[int]:
    return [
        total // parts + (part < total % parts)
        for part in range(min(total, parts))
    ]


def _turn(thing: Timed, count: int) -> list[float]:
    if thing.seconds is None:
        thing.call(0)
    measured: list[float] = []
    for number in range(count):
        start = time.perf_counter()
        thing.call(number)
        measured.append(time.perf_counter() - start)
        if thing.seconds is not None and sum(measured) >= thing.seconds:
            break
    return measured


def summary(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Returns percentiles in milliseconds, and of how many requests.

    Args:
        rounds: Seconds of every request, a list for each round.
    """
    every = np.concatenate([np.asarray(found) for found in rounds])
    found: dict[str, Any] = {"num_requests": len(every)}
    for percent in PERCENTILES:
        found[f"p{percent}"] = float(np.percentile(every, percent) * 1e3)
    return found


def medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Returns the median of each round."""
    return [float(np.median(found)) for found in rounds]
