"""One part of the values of a statistic, from the pairs of all shards.

A part is a range of hashes, so that all pairs of a value are in it. Its
counts are kept in the store, and every shard gets the numbers it asks for:

    STORE/statistics/<name>/part-00000-of-00003.arrow
        the value's columns, bucket, impressions, clicks; sorted by the former
    ANSWERS/<name>/part-00000-of-00003.arrow
        one batch a shard: the numbers of its pairs, in their order
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.candidate_statistics.shard_pairs import (
    HASH,
    hash_together,
)
from data_pipelines.candidate_statistics.value_counts import Base, ValueCounts
from data_pipelines.preparation.result_files import read_arrow, write_arrow
from data_pipelines.preparation.tables import stable_order
from data_pipelines.stores.hashing import hash_ids
from sparsectr.statistic import Statistic

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HashRange:
    """One of the equal parts of all hashes.

    Args:
        index: Which part.
        count: Into how many parts they are divided.
    """

    index: int
    count: int

    @property
    def file_name(self) -> str:
        """Name of a file about this part."""
        return f"part-{self.index:05d}-of-{self.count:05d}.arrow"

    def rows(self, hashed: Array) -> slice:
        """Returns which of the ascending hashes are in this part."""
        start, end = (
            len(hashed)
            if index == self.count
            else int(np.searchsorted(hashed, self._first(index)))
            for index in (self.index, self.index + 1)
        )
        return slice(start, end)

    def holds(self, hashed: Array) -> Array:
        """Returns which hashes, in any order, are in this part."""
        is_in: Array = hashed >= self._first(self.index)
        if self.index + 1 < self.count:
            is_in &= hashed < self._first(self.index + 1)
        return is_in

    def _first(self, index: int) -> np.uint64:
        """Returns the first hash of a part."""
        return np.uint64(-(-(index << 64) // self.count))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeTask:
    """What is needed to merge a part.

    Args:
        statistic: The statistic.
        part: Which of its values.
        shards: The pairs of each shard.
        base: Counts of all candidates.
        counts: The file for the merged counts.
        answers: The file for what the shards get.
        earlier: The file of the counts before an update that has those of
            these values among others.
    """

    statistic: Statistic
    part: HashRange
    shards: tuple[Path, ...]
    base: Path
    counts: Path
    answers: Path
    earlier: Path | None = None


def merge_pairs(task: MergeTask) -> None:
    """Writes counts and answers of a part, if they are not there yet."""
    if task.counts.exists():
        return
    parts = [_read(path, task.part) for path in task.shards]
    lengths = [len(part) for part in parts]
    if task.earlier is not None:
        parts.append(_read_earlier(task.earlier, task, parts[0].schema))
    pairs = pa.concat_tables(parts).combine_chunks()
    values, value = _number_values(pairs.select(task.statistic.columns))
    bucket = pairs["bucket"].to_numpy().astype(np.int64)
    order = stable_order(value, bucket)
    value, bucket = value[order], bucket[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (value[1:] != value[:-1]) | (bucket[1:] != bucket[:-1])
    start = np.flatnonzero(is_first)
    value, bucket = value[start], bucket[start]
    impressions, clicks = (
        _add_runs(pairs[name].to_numpy()[order], start)
        for name in ("impressions", "clicks")
    )
    # Without what was asked and not shown.
    shown = impressions > 0
    counts = ValueCounts(
        value=value[shown],
        bucket=bucket[shown],
        impressions=impressions[shown],
        clicks=clicks[shown],
    )
    numbers = counts.numbers(
        task.statistic, Base.of(read_arrow(task.base)), value, bucket
    )
    asked = np.empty(len(order), np.int64)
    asked[order] = np.cumsum(is_first) - 1
    _write_answers(
        task.answers,
        pa.table({name: column[asked] for name, column in numbers.items()}),
        lengths,
    )
    write_arrow(
        task.counts,
        pa.table(
            {
                **{
                    name: column.take(pa.array(counts.value))
                    for name, column in values.items()
                },
                "bucket": counts.bucket.astype(np.uint32),
                "impressions": counts.impressions.astype(np.uint32),
                "clicks": counts.clicks.astype(np.uint32),
            }
        ),
    )


def _read(path: Path, part: HashRange) -> pa.Table:
    """Returns the pairs of a shard that are in a part."""
    with pa.memory_map(str(path)) as file:
        pairs = pa.ipc.open_file(file).read_all()
        rows = part.rows(pairs[HASH].to_numpy())
        return pairs.slice(rows.start, rows.stop - rows.start)


def _read_earlier(path: Path, task: MergeTask, schema: pa.Schema) -> pa.Table:
    """Returns the counts of a part before an update, as pairs."""
    counts = read_arrow(path)
    hashed = hash_together(
        [hash_ids(counts[name]) for name in task.statistic.columns]
    )
    counts = counts.add_column(0, HASH, pa.array(hashed))
    return counts.filter(pa.array(task.part.holds(hashed))).cast(schema)


def _number_values(columns: pa.Table) -> tuple[dict[str, pa.Array], Array]:
    """Numbers the values of one column, or of two together, in their order.

    Returns:
        The columns of the distinct values, and the number of each row's.
    """
    row_number = np.zeros(len(columns), np.int64)
    sorted_values = {}
    for name in columns.column_names:
        encoded = columns[name].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        order = pc.sort_indices(encoded.dictionary)
        rank = np.empty(len(order), np.int64)
        rank[order.to_numpy()] = np.arange(len(order))
        sorted_values[name] = encoded.dictionary.take(order)
        number = rank[encoded.indices.to_numpy()]
        row_number = row_number * len(order) + number
    if len(sorted_values) == 1:
        return sorted_values, row_number
    distinct, row_number = np.unique(row_number, return_inverse=True)
    values = {}
    for name, ascending in reversed(sorted_values.items()):
        size = max(len(ascending), 1)
        values[name] = ascending.take(pa.array(distinct % size))
        distinct //= size
    return {name: values[name] for name in columns.column_names}, row_number


def _add_runs(column: Array, start: Array) -> Array:
    """Returns the sums of runs of rows."""
    if not len(start):
        return np.zeros(0, np.int64)
    return np.add.reduceat(column.astype(np.int64), start)


def _write_answers(
    path: Path, answers: pa.Table, lengths: Sequence[int]
) -> None:
    """Writes one batch a shard, empty or not."""
    hidden = path.with_name(f".{path.name}.partial")
    (batch,) = answers.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=answers.schema)
    ]
    with (
        pa.OSFile(str(hidden), "wb") as file,
        pa.ipc.new_file(file, answers.schema) as writer,
    ):
        start = 0
        for length in lengths:
            writer.write_batch(batch.slice(start, length))
            start += length
    hidden.replace(path)
