"""Requests of full histories for a benchmark: random ids and times."""

from typing import Any

import numpy as np

from data_pipelines.datasets.alibaba import (
    FIRST_BEHAVIOR_TIME,
    SCHEMA,
    TEST_TIME,
)
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema


def made_schema(num_rows: int) -> DatasetSchema:
    """Returns the fields of the Alibaba data, all tables of one size."""
    return SCHEMA.with_table_sizes(
        {table.name: num_rows for table in SCHEMA.tables}
    )


def made_requests(
    schema: DatasetSchema,
    batch_size: int,
    num_behaviors: int,
    num_candidates: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns a batch with labels.

    Ids are uniform over the tables, which is harder on the caches than real
    data; times are uniform over the weeks of the Alibaba log.

    Args:
        schema: A resolved schema.
        batch_size: B.
        num_behaviors: L; every history is that long.
        num_candidates: C; every request has that many.
        seed: Of the random numbers.
    """
    generator = np.random.default_rng(seed)
    requests = (batch_size,)
    behaviors = (batch_size, num_behaviors)
    candidates = (batch_size, num_candidates)
    batch: dict[str, Any] = {}
    for prefix, shape, fields in (
        ("user", requests, schema.user_fields),
        ("behavior", behaviors, schema.behavior_fields),
        ("candidate", candidates, schema.candidate_fields),
    ):
        for field in fields:
            size = schema.table(field.table).size
            batch[f"{prefix}_{field.name}"] = generator.integers(
                NUM_RESERVED_IDS, size, shape
            ).astype(np.int32)
    for dense in schema.candidate_dense_fields:
        batch[f"candidate_{dense.name}"] = generator.random(
            candidates, np.float32
        )
    batch["behavior_time"] = np.sort(
        generator.integers(FIRST_BEHAVIOR_TIME, TEST_TIME, behaviors)
    )
    batch["request_time"] = np.full(requests, TEST_TIME)
    batch["candidate_mask"] = np.ones(candidates, np.bool_)
    batch["label"] = (generator.random(candidates) < 0.05).astype(np.float32)
    return batch
