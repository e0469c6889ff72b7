"""Random requests for a small schema, seeded.

Sizes are primes that differ from one another, so that no axis can stand in
for another unnoticed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import recipe_class
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    CategoricalField,
    DatasetSchema,
    DenseField,
    Prefix,
    Table,
)
from sparsectr.time_fields import TIME_FIELDS
from sparsectr.time_zone import TimeZone

HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY

LENGTH = 29
NUM_CANDIDATES = 5


def _fields(*names: str) -> tuple[CategoricalField, ...]:
    return tuple(CategoricalField(name=name, table=name) for name in names)


def _set(name: str, max_values: int) -> CategoricalField:
    return CategoricalField(name=name, table="tag", max_values=max_values)


SCHEMA = DatasetSchema(
    name="toy",
    tables=(
        Table(name="item", size=23),
        Table(name="brand", size=37),
        Table(name="place", size=5),
        Table(name="age", size=41),
        Table(name="city", size=43),
        Table(name="gender", size=3),
        Table(name="tag", size=31),
    ),
    user_fields=(*_fields("age", "city", "gender"), _set("likes", 2)),
    behavior_fields=(*_fields("item", "brand"), _set("tags", 7)),
    candidate_fields=(*_fields("brand", "item", "place"), _set("tags", 3)),
    user_dense_fields=(DenseField(name="spend", mean=3.0, scale=11.0),),
    behavior_dense_fields=(
        DenseField(name="watched", transform="log1p", mean=0.5, scale=1.3),
    ),
    candidate_dense_fields=(
        DenseField(name="price", transform="log1p", mean=1.5, scale=0.7),
    ),
    time_zone=TimeZone.fixed(8 * 60),
)
"""Every kind of field that is served."""

LOGGED_SCHEMA = dataclasses.replace(
    SCHEMA,
    tables=(*SCHEMA.tables, Table(name="position", size=13)),
    training_fields=_fields("position"),
    has_weight=True,
)
"""And what only a log has."""

TIMED_SCHEMA = dataclasses.replace(SCHEMA, time_fields=tuple(TIME_FIELDS))
"""The same inputs, of which all time fields are computed too."""

CONFIG = SparseCTRRecipe(
    width=39,
    embedding_dim=17,
    num_blocks=2,
    num_heads=3,
    num_chunks=7,
    num_transition=2,
    num_local=11,
    head_units=(19,),
    longest_history=LENGTH,
    num_keys=7,
    num_first=5,
    num_recent=13,
    nsa_block=8,
    nsa_stride=4,
    nsa_selected_block=2,
)

SMALL_CONFIG = SparseCTRRecipe(
    width=10,
    embedding_dim=3,
    num_blocks=2,
    num_heads=5,
    num_chunks=3,
    num_transition=2,
    num_local=2,
    head_units=(7,),
)
"""For tests whose cost is that of tracing and compiling."""

RETRIEVAL_SIZES: dict[str, Any] = {"num_recent": 23, "num_retrieved": 19}
"""Where the short interest ends, and what the search may find: together most
of a history."""

SIZES_OF: dict[str, dict[str, Any]] = {"sim_hard": {"num_recent": LENGTH}}
"""A behavior of no candidate's category is read by the short interest alone."""


def sized_recipe(
    name: str, sizes: SparseCTRRecipe = CONFIG, **values: Any
) -> ModelRecipe:
    """Returns the recipe of any model, with the sizes of one that is here.

    Args:
        name: Name of the model.
        sizes: What to take the numbers of that it has as well.
        **values: Values of its own.
    """
    recipe = recipe_class(name)
    own = {field.name for field in dataclasses.fields(recipe)}
    numbers = {
        field: size
        for field, size in dataclasses.asdict(sizes).items()
        if field in own and isinstance(size, int | tuple)
    }
    numbers |= {k: v for k, v in RETRIEVAL_SIZES.items() if k in own}
    return recipe(**{**numbers, **SIZES_OF.get(name, {}), **values})


def make_times(random: np.random.Generator, num_valid: int) -> np.ndarray:
    """Ascending times with ties, and gaps at and around powers of two.

    Returns:
        int64 `[num_valid + 1]`, Unix seconds; the last is the request's and
        alone in its second.
    """
    powers = 2 ** random.integers(0, 22, size=num_valid)
    kinds = [
        np.zeros(num_valid, np.int64),
        powers,
        powers - 1,
        random.integers(0, 2 * DAY, size=num_valid),
    ]
    gaps = np.choose(random.integers(0, len(kinds), size=num_valid), kinds)
    gaps[-1:] = np.maximum(gaps[-1:], 1)
    first = random.integers(1_450_000_000, 1_550_000_000, size=1)
    return np.cumsum(np.concatenate([first, gaps]))


def make_requests(
    seed: int,
    num_valid: Sequence[int],
    schema: DatasetSchema = SCHEMA,
    length: int = LENGTH,
    num_candidates: int = NUM_CANDIDATES,
) -> dict[str, Any]:
    """Makes one request for each history length.

    Args:
        seed: Of all that is random.
        num_valid: Behaviours of each request, at most `length`.
        schema: Which fields there are.
        length: L.
        num_candidates: C.

    Returns:
        The dict of arrays that models read, with `candidate_mask`. The first
        value of every number is missing, and sets are of all sizes, none
        among them.
    """
    random = np.random.default_rng(seed)
    batch = len(num_valid)
    times = [make_times(random, count) for count in num_valid]
    inputs: dict[str, Any] = {
        "behavior_time": np.stack(
            [np.pad(row[:-1], (length - len(row) + 1, 0)) for row in times]
        ),
        "request_time": np.array([row[-1] for row in times]),
        "candidate_mask": np.ones((batch, num_candidates), bool),
    }
    valid = inputs["behavior_time"] > 0

    def draw(field: CategoricalField, *shape: int) -> np.ndarray:
        size = schema.table(field.table).size
        if field.max_values is None:
            return random.integers(0, size, size=shape, dtype=np.int32)
        shape = (*shape, field.max_values)
        ids = random.integers(1, size, size=shape, dtype=np.int32)
        counts = random.integers(0, field.max_values + 1, size=shape[:-1])
        return np.where(np.arange(field.max_values) < counts[..., None], ids, 0)

    for field in schema.user_fields:
        inputs[f"user_{field.name}"] = draw(field, batch)
    for field in schema.behavior_fields:
        ids = draw(field, batch, length)
        mask = valid[..., None] if field.is_set else valid
        inputs[f"behavior_{field.name}"] = np.where(mask, ids, 0)
    for field in schema.candidate_fields:
        ids = draw(field, batch, num_candidates)
        if not field.is_set:
            ids = np.maximum(ids, NUM_RESERVED_IDS)
        inputs[f"candidate_{field.name}"] = ids
    shapes: dict[Prefix, tuple[int, ...]] = {
        "user": (batch,),
        "behavior": (batch, length),
        "candidate": (batch, num_candidates),
    }
    for prefix, shape in shapes.items():
        for number in schema.numbers(prefix):
            values = random.exponential(9.0, size=shape).astype(np.float32)
            if prefix == "behavior":
                values[~valid] = 0.0
            values[:1, *[slice(-1, None)] * (len(shape) - 1)] = np.nan
            inputs[f"{prefix}_{number.name}"] = values
    for field in schema.training_fields:
        inputs[f"candidate_{field.name}"] = draw(field, batch, num_candidates)
    if schema.has_weight:
        weights = random.exponential(size=(batch, num_candidates))
        inputs["candidate_weight"] = weights.astype(np.float32)
    return inputs


def subset(inputs: dict[str, Any], prefix: str, index: Any) -> dict[str, Any]:
    """Returns a copy whose `prefix` arrays hold only columns `index`."""
    return {
        name: values[:, index] if name.startswith(prefix) else values
        for name, values in inputs.items()
    }


def pad_left(inputs: dict[str, Any], columns: int) -> dict[str, Any]:
    """Returns a copy with more padding before the histories."""
    return {
        name: np.pad(
            values, ((0, 0), (columns, 0), *[(0, 0)] * (values.ndim - 2))
        )
        if name.startswith("behavior_")
        else values
        for name, values in inputs.items()
    }
