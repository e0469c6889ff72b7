"""Impressions and clicks by value and bucket, and what a request is told.

The one place where a statistic's numbers are made of counts: the preparation
asks it about the buckets of all requests, and `data_pipelines.statistics`
about one moment.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sparsectr.statistic import Number, Statistic

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueCounts:
    """Counts of some values; those of other values are elsewhere.

    Args:
        value: int64 `[rows]`, numbers of the values, ascending; from 0 on,
            none left out.
        bucket: int64 `[rows]`, ascending within a value, none twice.
        impressions: int64 `[rows]`, more than 0.
        clicks: int64 `[rows]`.
    """

    value: Array
    bucket: Array
    impressions: Array
    clicks: Array

    def numbers(
        self, statistic: Statistic, base: "Base", value: Array, bucket: Array
    ) -> dict[str, Array]:
        """Returns the numbers of requests.

        Args:
            statistic: Says which numbers.
            base: What all candidates have in common.
            value: int64 `[requests]`, values that there are.
            bucket: int64 `[requests]`, buckets of the requests.

        Returns:
            float32 `[requests]` for each number, by its name.
        """
        end = bucket - statistic.delay // statistic.bucket
        first = np.searchsorted(self.value, value)
        last = self._rows_before(value, end)
        base_rate = base.rate(end)
        found = {}
        for number in statistic.numbers:
            if number.count == "age":
                found[number.name] = self._age(
                    statistic, first, last, bucket
                ).astype(np.float32)
                continue
            start = first
            if number.window is not None:
                length = number.window // statistic.bucket
                start = self._rows_before(value, end - length)
            found[number.name] = self._count(
                statistic, number, base_rate, start, last
            ).astype(np.float32)
        return found

    def _rows_before(self, value: Array, bucket: Array) -> Array:
        """Returns the first row of each value that is not before a bucket."""
        if not len(self.bucket):
            return np.zeros(len(value), np.int64)
        low = int(self.bucket.min())
        # One more than there are, for what is behind the last bucket.
        span = int(self.bucket.max()) - low + 2
        rows = self.value * span + (self.bucket - low)
        asked = value * span + np.clip(bucket - low, 0, span - 1)
        return np.searchsorted(rows, asked)

    def _count(
        self,
        statistic: Statistic,
        number: Number,
        base: Array,
        start: Array,
        last: Array,
    ) -> Array:
        counts = []
        for column in (self.impressions, self.clicks):
            total = np.concatenate([[0], np.cumsum(column, dtype=np.int64)])
            counts.append(total[last] - total[start])
        impressions, clicks = counts
        if number.count == "impressions":
            return impressions
        if number.count == "clicks":
            return clicks
        prior = statistic.prior
        return (clicks + prior * base) / (impressions + prior)

    def _age(
        self, statistic: Statistic, first: Array, last: Array, bucket: Array
    ) -> Array:
        age = np.full(len(first), np.nan)
        known = last > first
        since = bucket[known] - self.bucket[first[known]]
        age[known] = since * statistic.bucket
        return age


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """Counts of all candidates, whatever their values.

    Args:
        bucket: int64 `[rows]`, ascending, none twice.
        impressions: int64 `[rows]`.
        clicks: int64 `[rows]`.
    """

    bucket: Array
    impressions: Array
    clicks: Array

    @classmethod
    def of(cls, table: pa.Table) -> "Base":
        """Returns what columns of these names hold."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{n: table[n].to_numpy().astype(np.int64) for n in names})

    def rate(self, end: Array) -> Array:
        """Returns clicks over impressions before some buckets.

        Args:
            end: int64 `[requests]`, buckets.

        Returns:
            float64 `[requests]`, 0.5 where there is no impression.
        """
        row = np.searchsorted(self.bucket, end)
        impressions = np.concatenate([[0], np.cumsum(self.impressions)])[row]
        clicks = np.concatenate([[0], np.cumsum(self.clicks)])[row]
        return np.where(
            impressions > 0, clicks / np.maximum(impressions, 1), 0.5
        )
