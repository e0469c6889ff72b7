"""What one shard adds to the statistics, and what it asks of them.

A pair is a value (of one field or two) and a bucket. The pairs in which a
shard's candidates were shown say how often; the pairs of a candidate's value
and its request's bucket are what it asks. They are mostly the same, and each
stands once, in the order of a hash of its value: a part of the hashes is a
part of the values, whatever their number.

    SHARD/statistics/
      <name>/pairs.arrow     hash, the value's columns, bucket, impressions
                             and clicks
      <name>/train.npy       int32 [candidates], the row of what each asks;
      <name>/test.npy        -1 where a value is missing
      base_<bucket>.arrow    bucket, impressions and clicks of all candidates
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from data_pipelines.preparation.listwise import Listwise
from data_pipelines.preparation.result_files import write_arrow
from data_pipelines.stores.hashing import hash_ids, hash_rows
from data_pipelines.stores.id_sets import Column
from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.vocabulary import missing_value
from sparsectr.schema import DatasetSchema, Prefix
from sparsectr.statistic import USER_ID, Statistic

Array = npt.NDArray[Any]

HASH = "__hash"
"""Column of the hashes of the values."""

MISSING = -1
"""Row of a candidate whose value is missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardValues:
    """The values of a shard's fields, numbered.

    Args:
        codes: By group ("user", "candidate") and field, the number of each
            request's or candidate's value; 0 for a null. No set is asked for.
        values: By embedding table, the values of the numbers 1, 2, ...
    """

    codes: Mapping[Prefix, Mapping[str, Column]]
    values: Mapping[str, pa.Array]


def pairs_file(shard: Path, statistic: str) -> Path:
    """Returns the file of the pairs of a shard."""
    return shard / "statistics" / statistic / "pairs.arrow"


def rows_file(shard: Path, statistic: str, split: str) -> Path:
    """Returns the file of the rows that a split's candidates ask."""
    return shard / "statistics" / statistic / f"{split}.npy"


def base_file(folder: Path, bucket: int) -> Path:
    """Returns the file of all candidates' counts, of a shard or a store."""
    return folder / "statistics" / f"base_{bucket}.arrow"


def write_pairs(
    schema: DatasetSchema,
    rows: Listwise,
    numbered: ShardValues,
    is_training: Array,
    folder: Path,
) -> dict[str, int]:
    """Writes what a shard adds to every statistic of a schema.

    Args:
        schema: The schema.
        rows: The shard.
        numbered: Its values.
        is_training: bool `[num_requests]`.
        folder: The shard's folder.

    Returns:
        The number of pairs of each statistic.
    """
    shard = _ShardPairs(schema, rows, numbered)
    in_split = np.repeat(is_training, np.diff(rows.candidate_offset))
    num_pairs = {}
    for statistic in schema.statistics:
        pairs, asked = shard.pairs(statistic)
        path = pairs_file(folder, statistic.name)
        path.parent.mkdir(parents=True)
        write_arrow(path, pairs)
        for split, kept in zip(SPLITS, (in_split, ~in_split), strict=True):
            np.save(rows_file(folder, statistic.name, split), asked[kept])
        num_pairs[statistic.name] = len(pairs)
    for bucket in {statistic.bucket for statistic in schema.statistics}:
        write_arrow(base_file(folder, bucket), shard.base(bucket))
    return num_pairs


class _ShardPairs:
    """The candidates of a shard as pairs.

    Args:
        schema: The schema.
        rows: The shard.
        numbered: Its values.
    """

    def __init__(
        self, schema: DatasetSchema, rows: Listwise, numbered: ShardValues
    ) -> None:
        self.schema = schema
        self.rows = rows
        self.numbered = numbered
        self.request = np.repeat(
            np.arange(len(rows.request_time)), np.diff(rows.candidate_offset)
        )
        self.label = rows.candidates["label"].to_numpy()

    def pairs(self, statistic: Statistic) -> tuple[pa.Table, Array]:
        """Returns the pairs, and for each candidate the row it asks."""
        columns = [self._column(field) for field in statistic.fields]
        is_known = np.ones(len(self.request), bool)
        value = np.zeros(len(self.request), np.int64)
        for code, values in columns:
            is_known &= code >= 0
            value = value * len(values) + code
        (known,) = np.nonzero(is_known)
        value = value[known]
        distinct = None
        if len(columns) > 1:
            # Numbered anew, since those of two fields are far apart.
            value, distinct = _number(value)
        pair, bucket, asked, shown = self._number_pairs(
            statistic.bucket, value, known
        )
        impressions = np.bincount(shown, minlength=len(pair))
        clicks = np.bincount(shown, self.label[known], minlength=len(pair))
        rest = pair if distinct is None else distinct[pair]
        codes: list[Array] = []
        for _, values in reversed(columns):
            codes.insert(0, rest % max(len(values), 1))
            rest //= max(len(values), 1)
        hashed = hash_together(
            [
                hash_ids(values)[code]
                for code, (_, values) in zip(codes, columns, strict=True)
            ]
        )
        order = np.argsort(hashed)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        row = np.full(len(self.request), MISSING, np.int32)
        row[known] = place[asked]
        found = {
            name: values.take(pa.array(code[order]))
            for name, code, (_, values) in zip(
                statistic.columns, codes, columns, strict=True
            )
        }
        return pa.table(
            {
                HASH: hashed[order],
                **found,
                "bucket": bucket[order].astype(np.uint32),
                "impressions": impressions[order].astype(np.uint32),
                "clicks": clicks[order].astype(np.uint32),
            }
        ), row

    def base(self, bucket: int) -> pa.Table:
        """Returns impressions and clicks of all candidates by bucket."""
        buckets = self.rows.candidate_time // bucket
        low = int(buckets.min()) if len(buckets) else 0
        place, distinct = _number(buckets - low)
        clicks = np.bincount(place, self.label, minlength=len(distinct))
        return pa.table(
            {
                "bucket": (distinct + low).astype(np.int64),
                "impressions": np.bincount(place, minlength=len(distinct)),
                "clicks": clicks.astype(np.int64),
            }
        )

    def _column(self, field: str) -> tuple[Array, pa.Array]:
        """Returns the number of each candidate's value, from 0, and the values.

        The number of a missing one is -1.
        """
        if field == USER_ID:
            user = self.rows.request_user[self.request]
            return user.astype(np.int64), self.rows.user_id
        group, name = field.split(".")
        prefix: Prefix = "user" if group == "user" else "candidate"
        code = np.asarray(self.numbered.codes[prefix][name], np.int64) - 1
        (table,) = [
            self.schema.table(f.table)
            for f in self.schema.ids(prefix)
            if f.name == name
        ]
        values = self.numbered.values[table.name]
        # A null is missing, and so is what stands for one in a request.
        missing = values.index(pa.scalar(missing_value(table), values.type))
        if missing.as_py() >= 0:
            code[code == missing.as_py()] = -1
        return (code[self.request] if group == "user" else code), values

    def _number_pairs(
        self, bucket: int, value: Array, known: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Numbers the pairs that there are.

        Returns:
            Value and bucket of each pair, and for each known candidate the
            pair that it asks and the pair in which it was shown. They differ
            where a row is so much later than its request that it is in
            another bucket: to others of its request's bucket it is news.
        """
        asked = self.rows.request_time[self.request[known]] // bucket
        shown = self.rows.candidate_time[known] // bucket
        low = int(asked.min()) if len(asked) else 0
        span = (int(shown.max()) if len(shown) else 0) - low + 1
        (later,) = np.nonzero(shown != asked)
        key = value * span + (asked - low)
        if len(later):
            others = value[later] * span + (shown[later] - low)
            key = np.concatenate([key, others])
        place, distinct = _number(key)
        asked = place[: len(known)]
        shown = asked.copy()
        shown[later] = place[len(known) :]
        return distinct // span, distinct % span + low, asked, shown


def hash_together(hashed: list[Array]) -> Array:
    """Returns one uint64 for the hashes of each row's values."""
    return hashed[0] if len(hashed) == 1 else hash_rows(hashed)


def _number(keys: Array) -> tuple[Array, Array]:
    """Numbers the distinct values of integers that are not negative.

    Returns:
        The number of each, and the distinct values in the order of numbers.
    """
    size = int(keys.max(initial=-1)) + 1
    if size > 4 * len(keys):
        return pd.factorize(keys)
    # A table of all values that could be is faster than one of hashes.
    is_there = np.zeros(size, bool)
    is_there[keys] = True
    number = np.cumsum(is_there) - 1
    return number[keys], np.flatnonzero(is_there)
