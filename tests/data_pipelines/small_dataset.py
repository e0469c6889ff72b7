"""A small data set of Parquet files, and what a store of it must hold."""

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.preparation.engine import EmbeddedEngine, Engine
from data_pipelines.preparation.plan import Plan
from data_pipelines.preparation.prepare_store import run
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_table import RawTable, keep
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import FromTime
from data_pipelines.stores.store import Store
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

Rows = Sequence[tuple[Any, ...]]

SCHEMA = DatasetSchema(
    name="small",
    tables=(
        Table(name="user_id", min_count=2),
        Table(name="age"),
        Table(name="item", min_count=2),
        Table(name="kind", value_type="string"),
    ),
    user_fields=(
        CategoricalField(name="user_id", table="user_id"),
        CategoricalField(name="age", table="age"),
    ),
    behavior_fields=(
        CategoricalField(name="item", table="item"),
        CategoricalField(name="kind", table="kind"),
    ),
    candidate_fields=(CategoricalField(name="thing", table="item"),),
    candidate_dense_fields=(DenseField(name="price", transform="log1p"),),
)
TEST_TIME = 5

_INT = pa.int64()
TYPES = {
    "users": {"user_id": _INT, "age": _INT},
    "behaviors": {
        "user_id": _INT,
        "time": _INT,
        "item": _INT,
        "kind": pa.string(),
    },
    "impressions": {
        "user_id": _INT,
        "time": _INT,
        "thing": _INT,
        "price": pa.float32(),
        "label": _INT,
        "request": _INT,
    },
}


def arrow_table(types: Mapping[str, pa.DataType], rows: Rows) -> pa.Table:
    """Returns rows as a table."""
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    return pa.table(
        {
            name: pa.array(list(column), types[name])
            for name, column in zip(types, columns, strict=True)
        }
    )


def raw_table(
    name: str,
    types: Mapping[str, pa.DataType],
    folder: Path | None = None,
    rows: Rows = (),
) -> RawTable:
    """Returns a raw table; without a folder it has no file.

    A file has several row groups, so that it can be read in parts.
    """
    sources = ()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.parquet"
        size = max(5, len(rows) // 40)
        pq.write_table(arrow_table(types, rows), path, row_group_size=size)
        sources = (SourceFile(path=path),)
    return RawTable(
        name=name,
        sources=sources,
        reader=ParquetReader(columns=types),
        convert=keep,
    )


def small_dataset(
    rows: Mapping[str, Rows],
    folder: Path | None = None,
    types: Mapping[str, Mapping[str, pa.DataType]] = TYPES,
    **options: Any,
) -> RawDataset:
    """Returns a data set of the given rows of every table."""
    tables = {
        name: raw_table(name, types[name], folder, rows[name]) for name in types
    }
    defaults: dict[str, Any] = {
        "schema": SCHEMA,
        "split": FromTime(time=TEST_TIME, rule="from 5 on"),
    }
    return RawDataset(**(defaults | tables | options))


def drawn_rows(num_users: int, seed: int = 0) -> dict[str, Rows]:
    """Returns rows with shared seconds, absent profiles and missing values."""
    random = np.random.default_rng(seed)
    num = 12 * num_users

    def drawn(low: int, high: int) -> list[int]:
        return list(random.integers(low, high, num).tolist())

    def things() -> list[int | None]:
        return [None if n > 20 else n for n in drawn(0, 23)]

    profiles = zip(range(num_users), drawn(0, 4), strict=False)
    kinds = [None if n > 2 else "abc"[n] for n in drawn(0, 4)]
    prices = [
        None if n == 7 else float(np.float32(0.37 * n * n - 1))
        for n in drawn(0, 40)
    ]
    times = drawn(1, 10)
    # Some requests of a user share a second.
    requests = [2 * t + n for t, n in zip(times, drawn(0, 2), strict=True)]
    columns = {
        "behaviors": (drawn(0, num_users + 2), drawn(1, 10), things(), kinds),
        "impressions": (
            drawn(0, num_users),
            times,
            things(),
            prices,
            drawn(0, 2),
            requests,
        ),
    }
    return {
        "users": list(profiles)[::-2],
        **{k: list(zip(*v, strict=True)) for k, v in columns.items()},
    }


def prepared(
    dataset: RawDataset,
    data_dir: Path,
    *,
    num_shards: int = 1,
    num_workers: int = 1,
    range_bytes: int = 1 << 30,
    sample_requests: int = 256,
    resume: bool = False,
    engine: Engine | None = None,
) -> Store:
    """Prepares a store of a data set."""
    plan = Plan(
        dataset=dataset,
        data_dir=data_dir,
        num_shards=num_shards,
        range_bytes=range_bytes,
        sample_requests=sample_requests,
        details={"dataset": dataset.schema.name},
    )
    return run(plan, engine or EmbeddedEngine(num_workers), resume=resume)


def reference(rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Returns vocabularies, users and requests as plain Python values."""
    tables = {
        name: [dict(zip(TYPES[name], row, strict=True)) for row in rows[name]]
        for name in TYPES
    }
    profiles = {row["user_id"]: row for row in tables["users"]}
    impressions = tables["impressions"]
    users = sorted({row["user_id"] for row in impressions})
    behaviors = {
        user: sorted(
            (b for b in tables["behaviors"] if b["user_id"] == user),
            key=lambda b: b["time"],
        )
        for user in users
    }
    grouped: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in impressions:
        key = (row["user_id"], row["request"])
        grouped.setdefault(key, []).append(row)
    counts: dict[str, collections.Counter[Any]] = collections.defaultdict(
        collections.Counter
    )
    prices = []
    requests: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for (user, _), group in sorted(grouped.items()):
        time = group[0]["time"]
        past = [b for b in behaviors[user] if b["time"] < time]
        split = "train" if time < TEST_TIME else "test"
        requests[split].append(
            {"user": user, "time": time, "past": past, "rows": group}
        )
        if split == "train":
            counts["user_id"][user] += 1
            counts["age"][profiles.get(user, {}).get("age")] += 1
            for row in group:
                counts["item"][row["thing"]] += 1
                if row["price"] is not None:
                    prices.append(math.log1p(max(row["price"], 0.0)))
    for user in users:
        for behavior in behaviors[user]:
            if behavior["time"] < TEST_TIME:
                counts["item"][behavior["item"]] += 1
                counts["kind"][behavior["kind"]] += 1
    vocabularies = {}
    for table in SCHEMA.tables:
        counter = counts[table.name]
        counter.pop(None, None)
        kept = [v for v, n in counter.items() if n >= table.min_count]
        kept.sort(key=lambda v, counter=counter: (-counter[v], v))
        vocabularies[table.name] = kept
    return {
        "users": users,
        "profiles": profiles,
        "behaviors": behaviors,
        "requests": requests,
        "vocabularies": vocabularies,
        "prices": prices,
    }
