"""The few shapes that requests are padded to.

In training, sizes are chosen from the store's own (`fitting_sizes`). In serving
they are the same for all stores (`Buckets`): every new shape costs a server
time and memory once, so the warm-up has a record for each of these, a client
pads every request to one of them, and the batching parameters allow these batch
sizes and no others. Nothing here imports TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsectr.config import Config
from sparsectr.errors import InputError

# How long a request may wait for others, small beside a budget of 40 ms.
_BATCH_TIMEOUT_MICROSECONDS = 1000

# Batches that are computed at a time; each uses the session's threads too.
_NUM_BATCH_THREADS = 4

# A request behind so many batches would miss its deadline: the server says
# UNAVAILABLE at once instead, and the client tries another one.
_MAX_ENQUEUED_BATCHES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buckets:
    """Shapes of requests.

    Args:
        history_lengths: Padded lengths of a history, L.
        num_candidates: Padded numbers of candidates, C.
        batch_sizes: Numbers of requests that the server computes together.

    Raises:
        ValueError: If one of them is empty or not positive and ascending.

    Example:
        >>> Buckets().length_of(300)
        512
    """

    history_lengths: tuple[int, ...] = (128, 256, 512, 1024)
    num_candidates: tuple[int, ...] = (32, 128, 512, 1024)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if not values or any(
                a >= b for a, b in zip((0, *values), values, strict=False)
            ):
                raise ValueError(
                    f"`{field.name}` must be positive and ascending, with at "
                    f"least one entry. Received: {field.name}={values}"
                )

    @classmethod
    def for_config(cls, config: Config) -> "Buckets":
        """Returns the shapes for a model that was trained so.

        The longest history is the model's `max_history`; between the usual
        lengths and a longer one, lengths double.
        """
        longest = config.data.max_history
        lengths = list(cls.history_lengths)
        while lengths[-1] < longest:
            lengths.append(2 * lengths[-1])
        return cls(
            history_lengths=(*(n for n in lengths if n < longest), longest)
        )

    def length_of(self, num_behaviors: int) -> int:
        """Returns the length to pad a history to.

        Args:
            num_behaviors: How many it has.

        Returns:
            The least length that holds them; above the largest, the next
            multiple of it.
        """
        return least_bucket(self.history_lengths, num_behaviors)

    def candidates_of(self, num_candidates: int) -> int:
        """Returns the number of candidates to pad a request to.

        Args:
            num_candidates: How many it has.

        Returns:
            The least number that holds them; above the largest, the next
            multiple of it.
        """
        return least_bucket(self.num_candidates, num_candidates)

    def batch_of(self, num_requests: int) -> int:
        """Returns the number of requests to fill a batch up to.

        Args:
            num_requests: How many it has.

        Returns:
            The least size that holds them; above the largest, the next
            multiple of it.
        """
        return least_bucket(self.batch_sizes, num_requests)

    @classmethod
    def read(cls, path: Path) -> "Buckets":
        """Returns the shapes that a version was warmed up with.

        Args:
            path: Its `signature.json`.

        Raises:
            InputError: If that holds no shapes.
            OSError: If it cannot be read.
        """
        try:
            return cls.from_dict(json.loads(path.read_text("utf-8"))["buckets"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} has no buckets: {error}") from error

    def to_dict(self) -> dict[str, list[int]]:
        """Returns the shapes as values for JSON."""
        return {
            name: list(values)
            for name, values in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Buckets":
        """Returns the shapes that `to_dict()` describes.

        Raises:
            ValueError: If a key is missing, unknown, or has a bad value.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if sorted(values) != sorted(names):
            raise ValueError(
                f"Buckets have {', '.join(names)}. Received: {sorted(values)}"
            )
        for name in names:
            entries = values[name]
            if not isinstance(entries, list | tuple) or not all(
                type(entry) is int for entry in entries
            ):
                raise ValueError(
                    f"`{name}` must be a list of integers. "
                    f"Received: {name}={entries!r}"
                )
        return cls(**{name: tuple(values[name]) for name in names})

    def batching_params_text(self) -> str:
        """Returns the server's batching parameters.

        A text-format `BatchingParameters` of TensorFlow Serving, for
        `batching_params.pbtxt` in the folder of a version or
        `--batching_parameters_file` (`num_batch_threads` counts in the latter
        alone). Without `pad_variable_length_inputs`, which would pad
        histories at the wrong end and with a repeated value, and without
        splitting of large requests, whose parts may differ in width.
        """
        lines = [
            f"max_batch_size {{ value: {self.batch_sizes[-1]} }}",
            f"batch_timeout_micros {{ value: {_BATCH_TIMEOUT_MICROSECONDS} }}",
            f"max_enqueued_batches {{ value: {_MAX_ENQUEUED_BATCHES} }}",
            f"num_batch_threads {{ value: {_NUM_BATCH_THREADS} }}",
            *(f"allowed_batch_sizes: {size}" for size in self.batch_sizes),
        ]
        return "\n".join(lines) + "\n"


def least_bucket(buckets: tuple[int, ...], count: int) -> int:
    """Returns the bucket that holds `count`, or a multiple of the last.

    Args:
        buckets: Sizes, ascending.
        count: What it has to hold, not negative.
    """
    if count < 0:
        raise ValueError(
            f"`count` must not be negative. Received: count={count}"
        )
    for bucket in buckets:
        if count <= bucket:
            return bucket
    return -(-count // buckets[-1]) * buckets[-1]


_NUM_CHOICES = 128
"""A largest size is cut into so many steps, at whose ends sizes may lie."""

_LEAST_SAVING = 0.05
"""One more size has to take this part off the padded sum."""


def fitting_sizes(counts: npt.NDArray[Any], most: int) -> tuple[int, ...]:
    """Returns the sizes that pad what was counted the least.

    Args:
        counts: `[max + 1]`, how many there are of each size from 0 on: whole
            numbers or weights.
        most: Sizes, at most. Fewer where one more would save less than 5 %
            of all that is padded to: each costs a compilation.

    Returns:
        Ascending; the last holds the largest that occurs, and is 1 at least.

    Cost:
        O(most * 128^2), whatever the sizes.
    """
    occurring = np.flatnonzero(counts)
    largest = max(int(occurring[-1]) if len(occurring) else 0, 1)
    step = -(-largest // _NUM_CHOICES)
    ends = np.append(np.arange(step, largest, step), largest)
    up_to = np.cumsum(counts)[np.minimum(ends, len(counts) - 1)].astype(float)

    # Least sum of all up to an end that is padded with so many sizes, the
    # last of them at that end; and the end of the size before.
    padded = [ends * up_to]
    before: list[npt.NDArray[Any]] = []
    between = ends[:, None] * (up_to[:, None] - up_to[None, :])
    between[np.triu_indices(len(ends))] = np.inf  # only a smaller one
    for _ in range(most - 1):
        sums = padded[-1][None, :] + between
        best = sums.argmin(axis=1)
        least = sums[np.arange(len(ends)), best]
        if not least[-1] < (1.0 - _LEAST_SAVING) * padded[-1][-1]:
            break
        padded.append(least)
        before.append(best)

    place, sizes = len(ends) - 1, [largest]
    for best in reversed(before):
        place = int(best[place])
        sizes.append(int(ends[place]))
    return tuple(reversed(sizes))
