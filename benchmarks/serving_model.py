"""A SavedModel to time, and raw requests for it."""

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_requests import made_requests, made_schema
from data_pipelines.vocabulary import Vocabulary
from export.raw_requests import RawRequests
from sparsectr.config import ModelConfig
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema

Inputs = dict[str, Any]


def made_vocabularies(schema: DatasetSchema) -> dict[str, Vocabulary]:
    """Returns a vocabulary of made values for each table of a schema."""
    found = {}
    for table in schema.tables:
        values: Any = np.arange((table.size or 0) - NUM_RESERVED_IDS)
        if table.value_type == "string":
            values = [f"value {number}" for number in values]
        found[table.name] = Vocabulary(table, values)
    return found


def raw_inputs(
    num_rows: int, num_behaviors: int, num_candidates: int, num_requests: int
) -> list[Inputs]:
    """Returns inputs of `serving_default`, one request each.

    Args:
        num_rows: Rows of every table.
        num_behaviors: L; every history is that long.
        num_candidates: C.
        num_requests: How many.
    """
    schema = made_schema(num_rows)
    raw = _raw_requests(schema)
    return [
        raw.of(made_requests(schema, 1, num_behaviors, num_candidates, seed))
        for seed in range(num_requests)
    ]


@functools.cache
def _raw_requests(schema: DatasetSchema) -> RawRequests:
    return RawRequests(schema, made_vocabularies(schema))


def write_models(
    folder: Path,
    compiled: Mapping[str, Sequence[tuple[int, int, int]]],
    num_rows: int,
    max_history: int,
) -> dict[str, Any]:
    """Writes `<folder>/<attention>/1/` for each, in a process of its own.

    So this process stays without Python's TensorFlow, as a server is.

    Args:
        folder: Where to.
        compiled: "evo", "full" or both, with B, L and C of their compiled
            signatures.
        num_rows: Rows of every table.
        max_history: Newest behaviors that the models read.

    Returns:
        The environment: versions, devices and commit.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(
            _write, folder, compiled, num_rows, max_history
        ).result()


def _write(
    folder: Path,
    compiled: Mapping[str, Sequence[tuple[int, int, int]]],
    num_rows: int,
    max_history: int,
) -> dict[str, Any]:
    from sparsectr.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()

    from export.raw_ids import RawIds
    from export.serving_graph import ServingGraph
    from sparsectr.models.model_from_config import model_from_config
    from sparsectr.training.run_directory import environment

    schema = made_schema(num_rows)
    for attention, xla_buckets in compiled.items():
        config = ModelConfig(attention=attention)
        model = model_from_config(config, schema)
        assets = folder / f"{attention}-vocabularies"
        assets.mkdir()
        raw_ids = RawIds(schema, made_vocabularies(schema), assets, max_history)
        path = folder / attention / "1"
        path.parent.mkdir()
        ServingGraph(model, config, raw_ids).write(path, xla_buckets)
    return environment()


def split_inputs(inputs: Mapping[str, Any]) -> tuple[Inputs, Inputs]:
    """Returns what `encode_user` takes of a request, and what `score` does."""
    candidates = {
        name: value
        for name, value in inputs.items()
        if name.startswith("candidate_") or name == "request_time"
    }
    users = {n: v for n, v in inputs.items() if n not in candidates}
    return users, candidates
