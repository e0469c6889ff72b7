"""SparseCTR equals the NumPy reference of the paper's equations.

The sizes of `SCHEMA` and `CONFIG` are a different prime for every axis.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from configs.models.sparse_ctr import BRANCHES, SparseCTRRecipe
from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import TIME_FIELDS
from sparsectr.time_zone import TimeZone
from tests import reference
from tests.keras_weights import (
    random_model,
    reference_weights,
    without_user_fields,
)
from tests.make_requests import CONFIG, LENGTH, SCHEMA, make_requests

SHORT_AND_FULL = [LENGTH, 0, 1]


def _check(
    schema: DatasetSchema,
    config: SparseCTRRecipe,
    seed: int,
    num_valid: Any,
    **changed: np.ndarray,
) -> None:
    model = random_model(schema, config, seed)
    inputs = make_requests(seed, num_valid, schema) | changed
    logits = model(inputs).logits.numpy()
    expected = reference.forward(
        reference_weights(model), inputs, schema, config
    )
    # Rounding of 1.2e-7, through some dozens of sums of some dozens of
    # terms, which cancel where a logit is small.
    scale = np.max(np.abs(expected))
    assert np.std(expected) > 0.1 * scale
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("attention", ["evo", "full"])
def test_every_history_length(attention: str) -> None:
    config = dataclasses.replace(CONFIG, attention=attention)
    _check(SCHEMA, config, 0, [*range(LENGTH + 1), LENGTH])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_blocks(num_blocks: int, seed: int) -> None:
    config = dataclasses.replace(CONFIG, num_blocks=num_blocks)
    _check(SCHEMA, config, seed, SHORT_AND_FULL)


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("encoding", ["rel_temporal", "none"])
@pytest.mark.parametrize("attention", ["evo", "full"])
def test_variants(attention: str, encoding: str, has_user: bool) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    config = dataclasses.replace(CONFIG, attention=attention, encoding=encoding)
    _check(schema, config, 4, [LENGTH, 3, 11])


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize(
    "branches", list(itertools.combinations(BRANCHES, 2)), ids="-".join
)
def test_without_a_branch(branches: tuple[str, ...], has_user: bool) -> None:
    """Variants A2 to A4, with what may stand beside the other branches."""
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    config = dataclasses.replace(
        CONFIG,
        branches=branches,
        sink="key_value",
        num_registers=2 if "local" in branches else 0,
        boundary_sinks="transition" in branches,
    )
    _check(schema, config, 13, [LENGTH, 0, 1, 7])


@pytest.mark.parametrize("attention", ["evo", "full"])
@pytest.mark.parametrize(
    "biases",
    [("hour", "weekend"), ("time", "weekend"), ("time", "hour"), ("hour",)],
    ids="-".join,
)
def test_without_a_temporal_bias(
    biases: tuple[str, ...], attention: str
) -> None:
    """Variants B2 to B4."""
    config = dataclasses.replace(
        CONFIG, temporal_biases=biases, attention=attention
    )
    _check(SCHEMA, config, 14, [LENGTH, 3, 11])


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("attention", ["evo", "full"])
@pytest.mark.parametrize("sink", ["off_by_one", "learned", "key_value"])
def test_sinks(sink: str, attention: str, has_user: bool) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    config = dataclasses.replace(CONFIG, attention=attention, sink=sink)
    _check(schema, config, 9, [LENGTH, 0, 1, 7])


@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("sink", ["none", "key_value"])
def test_registers(sink: str, has_user: bool) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    config = dataclasses.replace(CONFIG, num_registers=5, sink=sink)
    _check(schema, config, 11, [LENGTH, 0, 1, 7])


@pytest.mark.parametrize("num_chunks", [1, 7, 31])
@pytest.mark.parametrize("sink", ["none", "key_value"])
def test_boundary_sinks(sink: str, num_chunks: int) -> None:
    config = dataclasses.replace(
        CONFIG,
        boundary_sinks=True,
        sink=sink,
        num_chunks=num_chunks,
        num_registers=2,
    )
    _check(SCHEMA, config, 12, [LENGTH, 0, 1, 7])


@pytest.mark.parametrize("attention", ["evo", "full"])
@pytest.mark.parametrize("output_gate", ["head", "element"])
def test_output_gates(output_gate: str, attention: str) -> None:
    config = dataclasses.replace(
        CONFIG, attention=attention, output_gate=output_gate
    )
    _check(SCHEMA, config, 10, [LENGTH, 0, 7])


@pytest.mark.parametrize(
    ("num_chunks", "num_transition", "num_local"),
    [(1, 1, 1), (1, 31, 1), (2, 1, 37), (31, 2, 3)],
)
def test_sparsity(num_chunks: int, num_transition: int, num_local: int) -> None:
    """Also more chunks, members and neighbours than there are behaviours."""
    config = dataclasses.replace(
        CONFIG,
        num_chunks=num_chunks,
        num_transition=num_transition,
        num_local=num_local,
    )
    _check(SCHEMA, config, 5, SHORT_AND_FULL)


@pytest.mark.parametrize("num_candidate_local", [1, 13, 37])
def test_windows_of_candidates(num_candidate_local: int) -> None:
    """Narrower than a behavior's, wider, and wider than the history."""
    config = dataclasses.replace(
        CONFIG, num_candidate_local=num_candidate_local, num_registers=2
    )
    _check(SCHEMA, config, 12, SHORT_AND_FULL)


@pytest.mark.parametrize(
    "zone",
    [
        TimeZone.fixed(-7 * 60),
        TimeZone.fixed(5 * 60 + 45),
        TimeZone.named("Europe/Copenhagen"),
    ],
    ids=lambda zone: zone.name,
)
def test_time_zones(zone: TimeZone) -> None:
    schema = dataclasses.replace(SCHEMA, time_zone=zone)
    _check(schema, CONFIG, 6, SHORT_AND_FULL)


@pytest.mark.parametrize(
    "names",
    [tuple(TIME_FIELDS), tuple(reversed(TIME_FIELDS)), ("request_hour",)],
)
def test_time_fields(names: tuple[str, ...]) -> None:
    zone = TimeZone.named("Europe/Copenhagen")
    schema = dataclasses.replace(SCHEMA, time_zone=zone, time_fields=names)
    _check(schema, CONFIG, 8, [LENGTH, 0, 1, 6, 17])


def test_means_between_two_days_and_gaps_of_a_century() -> None:
    """A mean at Friday 23:59:59.5 is no Saturday's, and no gap is cut off."""
    saturday, end = 1_494_604_800, 4_102_444_800  # in UTC+8; and 2100
    times = np.zeros((3, LENGTH), np.int64)
    times[0, -2:] = saturday - 1, saturday
    times[1, -3:] = 1, end - 3, end - 2
    times[2, -3:] = 1, 2**31, 2**31 + 2**30
    _check(
        SCHEMA,
        dataclasses.replace(CONFIG, num_chunks=1),
        7,
        [2, 3, 3],
        behavior_time=times,
        request_time=np.array([saturday + 1, end - 1, end - 1]),
    )
