"""One shard with codes of its own: the step before there are vocabularies.

    parts of the shard -> Listwise -> columns of codes, values with counts

What a value's id is depends on all shards. So each shard first numbers its
own values, and counts how often the training period shows them; when all have
been counted, numbers are replaced by ids (`encode_shard.py`).
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.candidate_statistics.shard_pairs import (
    ShardValues,
    write_pairs,
)
from data_pipelines.preparation.earlier_rows import EarlierRows
from data_pipelines.preparation.exact_sum import exact_sum, exact_sum_of_squares
from data_pipelines.preparation.field_values import field_values
from data_pipelines.preparation.listwise import (
    Listwise,
    build_listwise,
    without_idle_users,
)
from data_pipelines.preparation.read_shard_rows import (
    ShardTask,
    read_raw_shard,
)
from data_pipelines.preparation.result_files import write_arrow
from data_pipelines.preparation.sampled_requests import sample_shard
from data_pipelines.preparation.scan import shard_folders
from data_pipelines.raw.raw_dataset import RawDataset, earlier_impressions
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.stores.id_sets import Column
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import Shard, logged_numbers, stored_ids
from data_pipelines.stores.store import SAMPLED_REQUESTS
from data_pipelines.stores.vocabulary import arrow_type, id_dtype
from sparsectr.errors import InputError
from sparsectr.schema import PREFIXES, DatasetSchema, DenseField, Prefix

Array = npt.NDArray[Any]

_SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What one shard adds to the counts of all.

    Args:
        dropped: Rows that were left out, by reason.
        incomplete: Rows kept though something is missing, by reason.
        num_train: Training requests.
        num_test: Test requests.
        dense: For each number, as its tensor is called: how many values it
            has in training, their sum and sum of squares after its transform,
            as fractions.
        pairs: For each statistic, the pairs that it has of it.
    """

    dropped: Mapping[str, int]
    incomplete: Mapping[str, int]
    num_train: int
    num_test: int
    dense: Mapping[str, tuple[int, str, str]]
    pairs: Mapping[str, int] = dataclasses.field(default_factory=dict)


def build_shard(task: ShardTask) -> ShardSummary:
    """Builds and writes a coded shard, or nothing; deletes its parts then.

    A shard that is there already is not built again.

    Raises:
        InputError: If a row does not fit the others.
    """
    done = task.folder / _SUMMARY
    if not done.exists():
        partial = task.folder.with_name(f".{task.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        summary = _build(task, partial)
        (partial / _SUMMARY).write_text(
            json.dumps(dataclasses.asdict(summary)), "utf-8"
        )
        partial.rename(task.folder)
    kept = kept_tables(task.dataset) if task.keeps_rows else ()
    for table in task.dataset.tables:
        if table is not task.dataset.items and table not in kept:
            for folder in shard_folders(task.parts / table.name, task.shard):
                shutil.rmtree(folder)
    return ShardSummary(**json.loads(done.read_text("utf-8")))


def kept_tables(dataset: RawDataset) -> tuple[RawTable, ...]:
    """Returns the tables that later days need: all but what is only shown."""
    is_shown_only = isinstance(dataset.behaviors, RawTable)
    return tuple(
        table
        for table in dataset.tables
        if table is not dataset.impressions or not is_shown_only
    )


def read_counts(folder: Path, table: str) -> pa.Table:
    """Returns the values of an embedding table that a shard has.

    Returns:
        Columns `value` and `count`, its occurrences in training, and in a
        store that can grow `test_count`; the code of the first row is 1.
    """
    with pa.memory_map(str(folder / "values" / f"{table}.arrow")) as file:
        counts: pa.Table = pa.ipc.open_file(file).read_all()
    return counts


def _build(task: ShardTask, folder: Path) -> ShardSummary:
    dataset = task.dataset
    rows = build_listwise(dataset, read_raw_shard(task))
    is_training = rows.request_time < task.test_time
    if task.sample_requests:
        sample = sample_shard(rows, ~is_training, task.sample_requests)
        pq.write_table(sample, folder / SAMPLED_REQUESTS)
    groups = _groups(rows, task)
    codes: dict[Prefix, dict[str, Column]] = {prefix: {} for prefix in groups}
    incomplete = dict(rows.incomplete)
    counted_elsewhere = _counted_elsewhere(dataset)
    values_of: dict[str, pa.Array] = {}
    (folder / "values").mkdir()
    for table in dataset.schema.tables:
        found = [
            (prefix, field, field_values(group.columns[field.name], field))
            for prefix, group in groups.items()
            for field in stored_ids(dataset.schema, prefix)
            if field.table == table.name
        ]
        values, coded = _encode(
            [raw.values for _, _, raw in found], arrow_type(table)
        )
        values_of[table.name] = values
        counts = np.zeros(len(values) + 1, np.int64)
        test_counts = np.zeros_like(counts)
        for (prefix, field, raw), code in zip(found, coded, strict=True):
            codes[prefix][field.name] = raw.column_of(code)
            incomplete |= raw.incomplete(f"{prefix}_{field.name}")
            if (prefix, field.name, table.name) not in counted_elsewhere:
                group = groups[prefix]
                for total, rows_of in (
                    (counts, group.is_training & group.is_new),
                    (test_counts, ~group.is_training & group.is_new),
                ):
                    chosen = raw.of_each_value(rows_of)
                    total += np.bincount(code[chosen], minlength=len(total))
        columns = {"value": values, "count": counts[1:]}
        if task.keeps_rows:
            columns["test_count"] = test_counts[1:]
        write_arrow(
            folder / "values" / f"{table.name}.arrow", pa.table(columns)
        )
    dense = _add_numbers(dataset.schema, groups, codes)
    if task.earlier is not None:
        rows, kept = without_idle_users(rows)
        codes["behavior"] = {k: c[kept] for k, c in codes["behavior"].items()}
    _shard(rows, codes, is_training).save(folder)
    pairs = write_pairs(
        dataset.schema,
        rows,
        ShardValues(codes=codes, values=values_of),
        is_training,
        folder,
    )
    return ShardSummary(
        dropped=rows.dropped,
        incomplete=incomplete,
        num_train=int(is_training.sum()),
        num_test=int((~is_training).sum()),
        dense=dense,
        pairs=pairs,
    )


class _Group(NamedTuple):
    """Rows of one kind.

    Attributes:
        columns: Their fields.
        is_training: bool, which are of the training period.
        is_new: bool, which were not counted on days before.
    """

    columns: pa.Table
    is_training: Array
    is_new: Array | np.bool_


def _groups(rows: Listwise, task: ShardTask) -> dict[Prefix, _Group]:
    test_time = task.test_time
    is_training = rows.request_time < test_time
    num_candidates = np.diff(rows.candidate_offset)
    every = np.True_
    return {
        "user": _Group(rows.profiles, is_training, every),
        "behavior": _Group(
            rows.behaviors,
            rows.behavior_time < test_time,
            every if task.earlier is None else _new_rows(rows, task.earlier),
        ),
        "candidate": _Group(
            rows.candidates, np.repeat(is_training, num_candidates), every
        ),
    }


def _new_rows(rows: Listwise, earlier: EarlierRows) -> Array:
    """Returns which behaviors no update before has counted.

    Those of users without a request were none of the store's then.
    """
    known = earlier.known_users(rows.user_id.type)
    is_known = pc.is_in(rows.user_id, value_set=known).to_numpy(False)
    is_new: Array = rows.behavior_time >= earlier.begin_time
    return is_new | ~is_known[rows.behavior_user]


def _add_numbers(
    schema: DatasetSchema,
    groups: Mapping[Prefix, _Group],
    columns: Mapping[Prefix, dict[str, Column]],
) -> dict[str, tuple[int, str, str]]:
    """Adds the columns of numbers, and returns what their scales need."""
    statistics = {}
    for prefix, group in groups.items():
        values = {
            # To arrow a null is no number; to the store it is NaN.
            name: group.columns[name].fill_null(float("nan")).to_numpy()
            for name in logged_numbers(schema, prefix)
        }
        columns[prefix].update(values)
        for field in schema.numbers(prefix):
            if field.name in values:  # statistics are not counted yet
                statistics[f"{prefix}_{field.name}"] = _statistics(
                    field, values[field.name][group.is_training]
                )
    return statistics


def _counted_elsewhere(dataset: RawDataset) -> set[tuple[str, str, str]]:
    """Returns columns whose rows are counted already, as another group's.

    A row of impressions can be a candidate, a behavior and the profile of a
    request. What stands once in the files occurs once.

    Returns:
        Group, field and table of each.
    """
    schema = dataset.schema
    counted = set(schema.candidate_fields)
    found = set()
    if dataset.behaviors is earlier_impressions:
        fields = set(schema.behavior_fields)
        found |= {("behavior", f.name, f.table) for f in fields & counted}
        counted |= fields
    users = [] if dataset.users is None else dataset.users.empty.column_names
    return found | {
        ("user", f.name, f.table)
        for f in schema.user_fields
        if f in counted and f.name not in users
    }


def _encode(
    columns: Sequence[pa.ChunkedArray], value_type: pa.DataType
) -> tuple[pa.Array, list[Array]]:
    """Numbers the values of columns from 1 on; null is 0.

    Returns:
        The values, and the numbers of each column.
    """
    chunks = [chunk for column in columns for chunk in column.chunks]
    encoded = pa.chunked_array(chunks, type=value_type).dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # without a chunk
        empty = pa.array([], value_type)
        return empty, [np.zeros(0, np.uint8) for _ in columns]
    # The row of a null is -1, and its code 0.
    codes = encoded.indices.fill_null(-1).to_numpy() + 1
    codes = codes.astype(id_dtype(len(encoded.dictionary) + 1))
    ends = np.cumsum([len(column) for column in columns], dtype=np.int64)
    return encoded.dictionary, np.split(codes, ends)[:-1]


def _shard(
    rows: Listwise,
    columns: Mapping[Prefix, Mapping[str, Column]],
    is_training: Array,
) -> Shard:
    num_candidates = np.diff(rows.candidate_offset)
    label = rows.candidates["label"].to_numpy().astype(np.uint8)

    def split(chosen: Array) -> RequestColumns:
        kept = np.repeat(chosen, num_candidates)
        return RequestColumns(
            user=rows.request_user[chosen].astype(np.int32),
            users={k: column[chosen] for k, column in columns["user"].items()},
            time=rows.request_time[chosen].astype(np.uint32),
            history_end=rows.history_end[chosen],
            candidate_offset=np.cumsum(
                np.concatenate([[0], num_candidates[chosen]]), dtype=np.int64
            ),
            candidates={k: c[kept] for k, c in columns["candidate"].items()},
            label=label[kept],
        )

    return Shard(
        user_id=_id_column(rows.user_id),
        behavior_offset=np.searchsorted(
            rows.behavior_user, np.arange(len(rows.user_id) + 1)
        ).astype(np.int64),
        behavior_time=rows.behavior_time.astype(np.uint32),
        behaviors=columns["behavior"],
        splits={"train": split(is_training), "test": split(~is_training)},
    )


def _id_column(ids: pa.Array) -> Array:
    if pa.types.is_integer(ids.type):
        numbers: Array = ids.to_numpy(zero_copy_only=False)
        return numbers
    texts = [text.encode() for text in ids.to_pylist()]
    for text in texts:
        # NumPy does not tell it from the padding of a shorter text.
        if text.endswith(b"\0"):
            raise InputError(f"A user id ends in a NUL character: {text!r}.")
    return np.array(texts, dtype=np.bytes_)


def _statistics(field: DenseField, values: Array) -> tuple[int, str, str]:
    values = values[~np.isnan(values)].astype(np.float64)
    if field.transform == "log1p":
        values = np.log1p(np.maximum(values, 0.0))
    total, squares = exact_sum(values), exact_sum_of_squares(values)
    return len(values), str(total), str(squares)


def mean_and_scale(
    parts: Sequence[tuple[int, str, str]],
) -> tuple[float, float]:
    """Returns mean and standard deviation of a dense field.

    Args:
        parts: Number, sum and sum of squares of the values of each shard.
    """
    count = sum(part[0] for part in parts)
    if not count:
        return 0.0, 1.0
    mean = sum(Fraction(part[1]) for part in parts) / count
    square = sum(Fraction(part[2]) for part in parts) / count
    variance = float(square - mean * mean)
    # A constant feature says nothing; a scale of 1 leaves it at 0.
    return float(mean), variance**0.5 or 1.0


def with_scales(
    schema: DatasetSchema, summaries: Sequence[ShardSummary]
) -> DatasetSchema:
    """Returns a copy in which every number has its mean and scale."""
    fields: dict[str, Any] = {}
    for prefix in PREFIXES:
        scaled = []
        for field in schema.numbers(prefix):
            mean, scale = mean_and_scale(
                [s.dense[f"{prefix}_{field.name}"] for s in summaries]
            )
            scaled.append(dataclasses.replace(field, mean=mean, scale=scale))
        fields[f"{prefix}_dense_fields"] = tuple(scaled)
    return dataclasses.replace(schema, **fields)
