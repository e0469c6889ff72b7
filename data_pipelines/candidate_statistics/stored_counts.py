"""The counts that a store keeps of its statistics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.candidate_statistics.shard_pairs import base_file
from data_pipelines.candidate_statistics.value_counts import Base, ValueCounts
from data_pipelines.preparation.result_files import read_arrow
from data_pipelines.stores.hashing import hash_ids, hash_rows
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema
from sparsectr.statistic import Statistic

Array = npt.NDArray[Any]


def read_base(store: Path, bucket: int) -> Base:
    """Returns the counts of all candidates.

    Raises:
        InputError: If the file is absent or damaged.
    """
    return Base.of(_read(base_file(store, bucket)))


def count_parts(
    store: Path, statistic: Statistic
) -> Iterator[tuple[pa.Table, ValueCounts]]:
    """Yields the counts of a statistic, some values at a time.

    Yields:
        The distinct values in order, and their counts.

    Raises:
        InputError: If a file is absent or damaged.
    """
    folder = store / "statistics" / statistic.name
    files = sorted(folder.glob("part-*.arrow"))
    if not files:
        raise InputError(f"{folder} has no counts; prepare the data again.")
    for file in files:
        table = _read(file)
        values = table.select(statistic.columns)
        is_first = np.zeros(len(table), bool)
        is_first[:1] = True
        for column in values.columns:
            # Sorted, so that equal values are neighbours.
            before, after = column[:-1], column[1:]
            is_first[1:] |= pc.not_equal(before, after).to_numpy()
        numbers = {
            name: table[name].to_numpy().astype(np.int64)
            for name in ("bucket", "impressions", "clicks")
        }
        yield (
            values.filter(pa.array(is_first)),
            ValueCounts(value=np.cumsum(is_first) - 1, **numbers),
        )


def describe_counts(
    store: Path, schema: DatasetSchema
) -> tuple[dict[str, dict[str, int]], list[dict[str, int]]]:
    """Returns what a manifest says of the counts.

    Returns:
        For each statistic, its values and its pairs of a value and a bucket;
        and what they add to the digest of the store, none if there are none.
    """
    described: dict[str, dict[str, int]] = {}
    total = 0
    for bucket in sorted({s.bucket for s in schema.statistics}):
        base = read_base(store, bucket)
        total += _digest(
            f"base_{bucket}", [], base.bucket, base.impressions, base.clicks
        )
    for statistic in schema.statistics:
        found = {"values": 0, "pairs": 0}
        for values, counts in count_parts(store, statistic):
            found["values"] += len(values)
            found["pairs"] += len(counts.value)
            hashed = [hash_ids(column)[counts.value] for column in values]
            total += _digest(
                statistic.name,
                hashed,
                counts.bucket,
                counts.impressions,
                counts.clicks,
            )
        described[statistic.name] = found
    if not described:
        return {}, []
    return described, [{"statistics": total % (1 << 64)}]


def _digest(name: str, hashed: list[Array], *columns: Array) -> int:
    """Adds up a hash of each row, so that their order does not matter."""
    which = np.full(len(columns[0]), hash_ids(pa.array([name]))[0])
    rows = hash_rows([which, *hashed, *columns])
    return int(rows.sum(dtype=np.uint64))


def _read(path: Path) -> pa.Table:
    try:
        return read_arrow(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing from the store.") from error
    except pa.ArrowException as error:
        raise InputError(f"{path} is damaged: {error}") from error
