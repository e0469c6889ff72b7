"""The numbers of all values at one moment, as a feature store serves them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipelines.candidate_statistics.stored_counts import (
    count_parts,
    read_base,
)
from data_pipelines.candidate_statistics.value_counts import Base, ValueCounts
from sparsectr.statistic import Statistic

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class ServedNumbers:
    """A statistic at one moment.

    Args:
        store: Folder of the store.
        statistic: The statistic.
        time: Unix seconds; that of a request which would be served.
    """

    store: Path
    statistic: Statistic
    time: int

    @property
    def begin(self) -> int:
        """Unix seconds from which on requests are served the same."""
        return self.time // self.statistic.bucket * self.statistic.bucket

    @property
    def end(self) -> int:
        """Unix seconds; only what is before it counts."""
        return self.begin - self.statistic.delay

    @property
    def schema(self) -> pa.Schema:
        """Columns of the values and of the numbers, as requests call them."""
        values, _ = next(count_parts(self.store, self.statistic))
        numbers = [
            pa.field(f"candidate_{number.name}", pa.float32())
            for number in self.statistic.numbers
        ]
        return pa.schema([*values.schema, *numbers])

    def parts(self) -> Iterator[pa.Table]:
        """Yields the values that were shown before, with their numbers."""
        base = read_base(self.store, self.statistic.bucket)
        for values, counts in count_parts(self.store, self.statistic):
            first = np.searchsorted(counts.value, np.arange(len(values)))
            shown = counts.bucket[first] * self.statistic.bucket < self.end
            table = values.filter(pa.array(shown))
            for name, column in self._ask(
                counts, base, np.flatnonzero(shown)
            ).items():
                table = table.append_column(name, pa.array(column))
            yield table

    def unseen(self) -> dict[str, float | None]:
        """Returns the numbers of every other value; `None` for NaN."""
        base = read_base(self.store, self.statistic.bucket)
        nothing = np.zeros(0, np.int64)
        counts = ValueCounts(
            value=nothing, bucket=nothing, impressions=nothing, clicks=nothing
        )
        found = self._ask(counts, base, np.zeros(1, np.int64))
        return {
            name: None if np.isnan(number) else float(number)
            for name, (number,) in found.items()
        }

    def _ask(
        self, counts: ValueCounts, base: Base, value: Array
    ) -> dict[str, Array]:
        bucket = np.full(len(value), self.begin // self.statistic.bucket)
        numbers = counts.numbers(self.statistic, base, value, bucket)
        return {f"candidate_{name}": n for name, n in numbers.items()}
