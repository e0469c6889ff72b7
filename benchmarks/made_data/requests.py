"""Requests of full histories for a benchmark: random ids and times."""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.datasets.alibaba import (
    FIRST_BEHAVIOR_TIME,
    SCHEMA,
    TEST_TIME,
)
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    CategoricalField,
    DatasetSchema,
    DenseField,
)

MAX_VALUES = 5
"""Of a made set; as many as that and none are equally frequent."""

# Distinct values of the real files, as published. Categories and brands are
# those of the behavior log, which has more of them than the advertisements.
_NUM_VALUES = {
    "user_id": 1_141_729,
    "cms_segid": 97,
    "cms_group_id": 13,
    "final_gender_code": 2,
    "age_level": 7,
    "pvalue_level": 3,
    "shopping_level": 3,
    "occupation": 2,
    "new_user_class_level": 4,
    "btag": 4,
    "cate": 12_977,
    "brand": 461_497,
    "adgroup_id": 846_811,
    "campaign_id": 423_436,
    "customer": 255_875,
    "pid": 2,
}


def made_schema(num_rows: int) -> DatasetSchema:
    """Returns the fields of the Alibaba data, all tables of one size."""
    return SCHEMA.with_table_sizes(
        {table.name: num_rows for table in SCHEMA.tables}
    )


def published_schema(
    max_rows: int = 0, num_sets: int = 0, num_numbers: int = 0
) -> DatasetSchema:
    """Returns the fields of the Alibaba data, tables as large as it needs.

    Args:
        max_rows: Most rows of a table, 0 for no limit.
        num_sets: Sets of at most `MAX_VALUES` categories that a behavior has
            besides.
        num_numbers: Numbers that it has besides.
    """
    sizes = {k: v + NUM_RESERVED_IDS for k, v in _NUM_VALUES.items()}
    if max_rows:
        sizes = {name: min(size, max_rows) for name, size in sizes.items()}
    schema = SCHEMA.with_table_sizes(sizes)
    return dataclasses.replace(
        schema,
        behavior_fields=(
            *schema.behavior_fields,
            *(
                CategoricalField(
                    name=f"set_{n}", table="cate", max_values=MAX_VALUES
                )
                for n in range(num_sets)
            ),
        ),
        behavior_dense_fields=tuple(
            DenseField(name=f"number_{n}") for n in range(num_numbers)
        ),
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
