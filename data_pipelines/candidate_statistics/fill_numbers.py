"""The numbers of one shard's candidates, from the answers to its pairs."""

import dataclasses
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.candidate_statistics.merge_pairs import HashRange
from data_pipelines.candidate_statistics.shard_pairs import (
    MISSING,
    rows_file,
)
from data_pipelines.preparation.result_files import write_json
from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.store import SAMPLED_REQUESTS
from sparsectr.schema import DatasetSchema
from sparsectr.statistic import Number

Array = npt.NDArray[Any]

_SUMS = "sums.json"

_FRACTION_BITS = 26
"""The model's view of a number is below 32, so that its square fits int64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillTask:
    """What is needed to give a shard its numbers.

    Args:
        schema: Says which statistics there are.
        coded: Folder of the coded shard.
        shard: Which shard.
        answers: Folder of the answers, by statistic.
        num_parts: Into how many parts the values of each statistic went.
    """

    schema: DatasetSchema
    coded: Path
    shard: int
    answers: Path
    num_parts: Mapping[str, int]


def fill_numbers(task: FillTask) -> dict[str, tuple[int, str, str]]:
    """Writes the numbers as columns of the shard, and into its sample.

    Returns:
        For each number, what `ShardSummary.dense` has for a dense field.
    """
    done = task.coded / "statistics" / _SUMS
    if not done.exists():
        write_json(done, _fill(task))
    sums: dict[str, tuple[int, str, str]] = json.loads(done.read_text("utf-8"))
    return sums


def sums_of(
    number: Number, values: Array, times: Array
) -> tuple[int, str, str]:
    """Returns number, sum and sum of squares, as fractions, after a transform.

    Of integers, in steps of 2^-26: the sums do not depend on how the values
    are divided up. (`exact_sum` takes floats of any size, and ten times as
    long.)

    Args:
        number: Which number of a statistic.
        values: float32, NaN for a missing one.
        times: How often each is there.
    """
    is_there = ~np.isnan(values) & (times > 0)
    times = times[is_there].astype(np.int64)
    numbers = values[is_there].astype(np.float64)
    if number.transform == "log1p":
        numbers = np.log1p(numbers)
    steps = np.rint(np.ldexp(numbers, _FRACTION_BITS)).astype(np.int64)
    squares = steps * steps
    high, low = squares >> 31, squares & ((1 << 31) - 1)
    total = int((times * steps).sum())
    total_squares = (int((times * high).sum()) << 31) + int((times * low).sum())
    unit = Fraction(1, 1 << _FRACTION_BITS)
    return (
        int(times.sum()),
        str(total * unit),
        str(total_squares * unit * unit),
    )


def _fill(task: FillTask) -> dict[str, tuple[int, str, str]]:
    sums = {}
    test: dict[str, Array] = {}
    for statistic in task.schema.statistics:
        answers = _answers(task, statistic.name)
        rows = {
            split: np.load(rows_file(task.coded, statistic.name, split))
            for split in SPLITS
        }
        # A pair is asked as often as there are candidates of its value.
        trained = rows["train"]
        times = np.bincount(trained[trained != MISSING], minlength=len(answers))
        for number in statistic.numbers:
            # The last one is what the row of a missing value leads to.
            column = np.append(
                answers[number.name].to_numpy(), np.float32(np.nan)
            )
            values = {split: column[rows[split]] for split in SPLITS}
            for split in SPLITS:
                path = task.coded / split / f"candidate_{number.name}.npy"
                np.save(path, values[split])
            test[number.name] = values["test"]
            sums[f"candidate_{number.name}"] = sums_of(
                number, column[:-1], times
            )
    sample = task.coded / SAMPLED_REQUESTS
    if sample.exists():
        offset = np.load(task.coded / "test" / "candidate_offset.npy")
        _add_to_sample(sample, offset, test)
    return sums


def _answers(task: FillTask, statistic: str) -> pa.Table:
    """Returns the answers to a shard's pairs, in their order."""
    count = task.num_parts[statistic]
    batches = []
    for index in range(count):
        part = HashRange(index=index, count=count)
        path = task.answers / statistic / part.file_name
        with pa.memory_map(str(path)) as file:
            batches.append(pa.ipc.open_file(file).get_batch(task.shard))
    return pa.Table.from_batches(batches)


def _add_to_sample(
    path: Path, offset: Array, columns: Mapping[str, Array]
) -> None:
    """Adds numbers to the requests that were kept as they were logged."""
    sample = pq.read_table(path)
    request = sample["request"].to_numpy()
    start, length = offset[request], np.diff(offset)[request]
    end = np.cumsum(length)
    row = np.arange(length.sum()) + np.repeat(start - (end - length), length)
    lists_end = pa.array(np.concatenate([[0], end]), pa.int32())
    for name, values in columns.items():
        column = f"candidate_{name}"
        if column in sample.column_names:
            continue  # stopped behind the last step
        # A number that is missing is null there.
        numbers = pa.array(values[row], from_pandas=True)
        lists = pa.ListArray.from_arrays(lists_end, numbers)
        sample = sample.append_column(column, lists)
    hidden = path.with_name(f".{path.name}.partial")
    pq.write_table(sample, hidden)
    hidden.replace(path)
