"""A SavedModel to time, and raw requests for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.measuring.new_process import in_new_process
from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.stores.vocabulary import Vocabulary
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema

Inputs = dict[str, Any]
Array = npt.NDArray[Any]
Shape = tuple[int, int]  # L and C of a request.

NUM_ANSWERED = 2
"""Requests of each shape that the Keras model answers too."""

_ANSWERS = "keras.npz"


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
    vocabularies = made_vocabularies(schema)
    shape = num_behaviors, num_candidates
    return [
        raw_values(schema, vocabularies, batch)
        for batch in _made_batches(schema, shape, num_requests)
    ]


def raw_values(
    schema: DatasetSchema, vocabularies: Mapping[str, Vocabulary], batch: Inputs
) -> Inputs:
    """Returns the made values of made ids, all of which stand for one."""
    found = {
        n: v for n, v in batch.items() if n not in ("candidate_mask", "label")
    }
    for prefix, fields in (
        ("user", schema.user_fields),
        ("behavior", schema.behavior_fields),
        ("candidate", schema.candidate_fields),
    ):
        for field in fields:
            name = f"{prefix}_{field.name}"
            places = pa.array(batch[name].ravel() - NUM_RESERVED_IDS)
            values: Any = vocabularies[field.table].values
            raw = values.take(places).to_numpy(zero_copy_only=False)
            found[name] = raw.reshape(batch[name].shape)
    return found


def _made_batches(
    schema: DatasetSchema, shape: Shape, num_requests: int
) -> list[Inputs]:
    return [
        made_requests(schema, 1, *shape, seed) for seed in range(num_requests)
    ]


def write_models(
    folder: Path,
    compiled: Mapping[str, Sequence[tuple[int, int, int]]],
    num_rows: int,
    max_history: int,
    answered: Sequence[Shape] = (),
    num_blocks: int = SparseCTRRecipe().num_blocks,
) -> dict[str, Any]:
    """Writes `<folder>/<attention>/1/` for each, in a process of its own.

    So this process stays without Python's TensorFlow, as a server is. Weights
    are random: those of a new model give every candidate the same score, and
    paths that mix candidates up would agree.

    Args:
        folder: Where to.
        compiled: "evo", "full" or both, with B, L and C of their compiled
            signatures.
        num_rows: Rows of every table.
        max_history: Newest behaviors that the models read.
        answered: For the first `NUM_ANSWERED` requests of these shapes,
            `keras_answers` gives the probabilities of the Keras model, "evo".
        num_blocks: Blocks of the models.

    Returns:
        The environment: versions, devices and commit.
    """
    return in_new_process(
        _write, folder, compiled, num_rows, max_history, answered, num_blocks
    )


def keras_answers(folder: Path, shape: Shape) -> Array:
    """Returns what the Keras model says, `[NUM_ANSWERED, C]`.

    Args:
        folder: That of `write_models`.
        shape: L and C, one of those that were answered.
    """
    with np.load(folder / _ANSWERS) as answers:
        return np.asarray(answers[_name(shape)])


def _name(shape: Shape) -> str:
    return " ".join(map(str, shape))


def _write(
    folder: Path,
    compiled: Mapping[str, Sequence[tuple[int, int, int]]],
    num_rows: int,
    max_history: int,
    answered: Sequence[Shape],
    num_blocks: int,
) -> dict[str, Any]:
    from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()

    from export.graph.serving_graph import ServingGraph
    from sparsectr.prediction.raw_ids import RawIds
    from sparsectr.training.run_directory import environment

    schema = made_schema(num_rows)
    for attention, xla_buckets in compiled.items():
        config = SparseCTRRecipe(attention=attention, num_blocks=num_blocks)
        model = config.build(schema)
        _randomize(model)
        assets = folder / f"{attention}-vocabularies"
        assets.mkdir()
        raw_ids = RawIds(schema, made_vocabularies(schema), assets, max_history)
        path = folder / attention / "1"
        path.parent.mkdir()
        ServingGraph(model, raw_ids).write(path, xla_buckets)
        if attention == "evo":
            answers = _answers(model, schema, answered)
            np.savez(folder / _ANSWERS, **answers)
    return environment()


def _randomize(model: Any) -> None:
    """Draws weights whose scores are neither all likely nor all unlikely.

    Kernels keep the size of their inputs, so that a deep model still computes
    ordinary numbers.
    """
    generator = np.random.default_rng(0)
    for weight in model.weights:
        noise = generator.normal(size=tuple(weight.shape))
        name = weight.path.rsplit("/", maxsplit=1)[-1]
        if name == "rows":
            weight.assign(noise)
        elif name == "kernel":
            weight.assign(noise * noise.shape[-2] ** -0.5)
        elif name == "scale":
            weight.assign(1.0 + 0.2 * noise)
        else:
            weight.assign(0.3 * noise)


def _answers(
    model: Any, schema: DatasetSchema, shapes: Sequence[Shape]
) -> dict[str, Any]:
    if not shapes:
        return {}
    import tensorflow as tf

    (batch,) = _made_batches(schema, shapes[0], 1)
    specs = {
        name: tf.TensorSpec([None] * value.ndim, value.dtype)
        for name, value in batch.items()
    }

    # A graph, as in training and evaluation; one for all shapes.
    @tf.function(input_signature=[specs], autograph=False)
    def predict(inputs: Inputs) -> Any:
        return tf.sigmoid(model(inputs, training=False).logits)

    return {
        _name(shape): np.concatenate(
            [
                predict(batch).numpy()
                for batch in _made_batches(schema, shape, NUM_ANSWERED)
            ]
        )
        for shape in shapes
    }


def split_inputs(inputs: Mapping[str, Any]) -> tuple[Inputs, Inputs]:
    """Returns what `encode_user` takes of a request, and what `score` does."""
    candidates = {
        name: value
        for name, value in inputs.items()
        if name.startswith("candidate_") or name == "request_time"
    }
    users = {n: v for n, v in inputs.items() if n not in candidates}
    return users, candidates
