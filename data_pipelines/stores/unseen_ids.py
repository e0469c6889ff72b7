"""Which ids of a store no row before its validation has."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.shard import Shard, stored_ids
from data_pipelines.stores.split_parts import in_part
from data_pipelines.stores.store import Store
from sparsectr.schema import NUM_RESERVED_IDS, Prefix

Array = npt.NDArray[Any]


def unseen_before_validation(
    store: Store, first_time: int = 0
) -> dict[str, Array]:
    """Returns the ids that stand in nothing older than the validation.

    The test has values of its own too, but those have no id: they are out of
    vocabulary. Of the validation's, which is cut out of what the vocabulary
    was made of, this says which they are.

    Args:
        store: The data.
        first_time: Unix seconds; requests before it do not count. Behaviors
            do, which later requests have in their histories.

    Returns:
        int64 ids of each vocabulary table, ascending. Values of hashed tables
        share their ids in the test as well, and are not looked at.

    Raises:
        InputError: If the store has no validation time.

    Cost:
        Reads all columns of ids before the test once.
    """
    seen = {
        table.name: np.zeros(table.size or 0, np.bool_)
        for table in store.schema.tables
        if table.kind == "vocabulary"
    }
    for shard in store.shards:
        for table, column in _older_columns(store, shard, first_time):
            if table in seen:
                seen[table][_values(column)] = True
    for rows in seen.values():
        rows[:NUM_RESERVED_IDS] = True
    return {name: np.flatnonzero(~rows) for name, rows in seen.items()}


def _older_columns(
    store: Store, shard: Shard, first_time: int
) -> list[tuple[str, Column]]:
    """Returns tables and ids of a shard's rows before the validation."""
    time = store.validation_time
    requests = shard.splits["train"]
    older = in_part(requests, "train_older", time)
    older &= np.asarray(requests.time) >= first_time
    of_older = np.repeat(older, np.diff(requests.candidate_offset))
    parts: tuple[tuple[Prefix, Any, Array], ...] = (
        ("user", requests.users, older),
        ("behavior", shard.behaviors, np.asarray(shard.behavior_time) < time),
        ("candidate", requests.candidates, of_older),
    )
    return [
        (field.table, columns[field.name][rows])
        for prefix, columns, rows in parts
        for field in stored_ids(store.schema, prefix)
    ]


def _values(column: Column) -> Array:
    return np.asarray(column.values if isinstance(column, IdSets) else column)
