"""The ids that only the validation has, against a loop over rows."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from data_pipelines.stores.id_sets import Column, IdSets, make_sets
from data_pipelines.stores.shard import Shard
from data_pipelines.stores.store import Store
from data_pipelines.stores.unseen_ids import unseen_before_validation
from sparsectr.schema import CategoricalField
from tests.data_pipelines.make_store import VALIDATION_TIME, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = make_store(tmp_path_factory.mktemp("unseen") / "store")
    tables = tuple(
        table
        if table.name == "kind"
        else dataclasses.replace(table, kind="vocabulary")
        for table in store.schema.tables
    )
    store.schema = dataclasses.replace(store.schema, tables=tables)
    store.shards = tuple(map(_with_sets, store.shards))
    return store


def _with_sets(shard: Shard) -> Shard:
    """Returns a copy where a behavior has any number of shops."""
    shops = np.asarray(shard.behaviors["shop"])
    counts = np.arange(len(shops)) % 4
    ids = (shops.repeat(counts) + np.arange(counts.sum()) % 3) % 300
    behaviors = {**shard.behaviors, "shop": make_sets(counts, ids)}
    return dataclasses.replace(shard, behaviors=behaviors)


def _slow(store: Store, first_time: int) -> dict[str, set[int]]:
    """Returns the ids of each table in rows before the validation."""
    found: dict[str, set[int]] = {t.name: set() for t in store.schema.tables}
    schema = store.schema

    def add(
        fields: Sequence[CategoricalField],
        columns: Mapping[str, Column],
        row: int,
    ) -> None:
        for field in fields:
            column = columns[field.name]
            if isinstance(column, IdSets):
                start, end = column.offset[row : row + 2]
                found[field.table] |= set(column.values[start:end].tolist())
            else:
                found[field.table].add(int(column[row]))

    for shard in store.shards:
        for row in range(shard.num_behaviors):
            if shard.behavior_time[row] < VALIDATION_TIME:
                add(schema.behavior_fields, shard.behaviors, row)
        requests = shard.splits["train"]
        for row in range(requests.num_requests):
            if not first_time <= requests.time[row] < VALIDATION_TIME:
                continue
            add(schema.user_fields, requests.users, row)
            start, end = requests.candidate_offset[row : row + 2]
            for candidate in range(start, end):
                add(schema.candidate_fields, requests.candidates, candidate)
    return found


@pytest.mark.parametrize("first_time", [0, VALIDATION_TIME - 9])
def test_what_no_older_row_has(store: Store, first_time: int) -> None:
    seen = _slow(store, first_time)
    unseen = unseen_before_validation(store, first_time)
    assert set(unseen) == {"user", "serial", "shop"}  # `kind` is hashed
    for name, ids in unseen.items():
        size = store.schema.table(name).size or 0
        assert ids.tolist() == sorted(set(range(2, size)) - seen[name])
    # Both answers occur.
    assert seen["shop"] - {0, 1}
    assert len(unseen["shop"])
