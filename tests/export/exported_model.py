"""A small model that reads every kind of raw value, exported once."""

import dataclasses
import functools
import pathlib
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
    request_types,
)
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from export.graph.serving_graph import ServingGraph
from export.graph.signature import signatures
from sparsectr.model_recipe import ModelRecipe
from sparsectr.prediction.raw_ids import RawIds
from sparsectr.schema import PREFIXES, DatasetSchema, Table
from tests import make_requests
from tests.keras_weights import random_model
from tests.made_once import made_once

MAX_HISTORY = 40
XLA_BUCKET = (4, 31, 5)
CONFIG = make_requests.SMALL_CONFIG

# The answers of these weights are neither all likely nor all unlikely.
_SEED = 6

_KINDS: dict[str, dict[str, Any]] = {
    "item": {"kind": "hashed"},
    "brand": {"value_type": "string"},
    "gender": {"value_type": "string"},
    "city": {"kind": "hashed", "value_type": "string"},
}

SCHEMA: DatasetSchema = dataclasses.replace(
    make_requests.SCHEMA,
    tables=tuple(
        dataclasses.replace(table, **_KINDS.get(table.name, {}))
        for table in make_requests.SCHEMA.tables
    ),
)


def _vocabulary(table: Table) -> Vocabulary:
    if table.kind == "hashed":
        return Vocabulary(table)
    count = (table.size or 0) - 2
    if table.value_type == "int":
        return Vocabulary(table, [7 * n - 20 for n in range(count)])
    return Vocabulary(table, [f"{table.name} {n}" for n in range(count)])


VOCABULARIES = {table.name: _vocabulary(table) for table in SCHEMA.tables}

_MISSING = {"int": MISSING_INTEGER, "string": MISSING_TEXT}
_UNKNOWN = {"int": -1, "string": "unknown"}


def requests(
    seed: int, num_valid: list[int], **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns random requests as ids, and the raw values that mean them."""
    ids = make_requests.make_requests(seed, num_valid, SCHEMA, **options)
    raw = {name: ids[name] for name in request_types(SCHEMA)}
    for prefix in PREFIXES:
        for field in SCHEMA.ids(prefix):
            name, vocabulary = f"{prefix}_{field.name}", field.table
            raw[name], ids[name] = _raw(VOCABULARIES[vocabulary], ids[name])
    return ids, raw


def _raw(vocabulary: Vocabulary, ids: np.ndarray) -> tuple[Any, Any]:
    """Returns raw values, and the ids that the preparation makes of them.

    They are `ids` again, but for those of a hashed table.
    """
    table, known = vocabulary.table, vocabulary.values
    values: Any = range((table.size or 0) - 2)
    if known is not None:
        values = known.to_pylist()
    elif table.value_type == "string":
        values = [f"some {table.name} {n}" for n in values]
    decoded = [None, _UNKNOWN[table.value_type], *values]
    column = pa.array([decoded[n] for n in ids.ravel()], arrow_type(table))
    again = vocabulary.encode(pa.chunked_array([column]))
    raw = column.fill_null(_MISSING[table.value_type]).to_numpy(
        zero_copy_only=False
    )
    return raw.reshape(ids.shape), again.reshape(ids.shape).astype(np.int32)


def only(inputs: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    """Returns the inputs whose names begin so."""
    return {k: v for k, v in inputs.items() if k.startswith(prefixes)}


class ExportedModel:
    """The Keras model and what is exported of it.

    Args:
        folder: Where to export to, or where it has been.
        config: What the model is.
        schema: Its fields; raw values are those of `SCHEMA`.
        xla_buckets: Shapes of compiled signatures.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        config: ModelRecipe = CONFIG,
        schema: DatasetSchema = SCHEMA,
        xla_buckets: tuple[tuple[int, int, int], ...] = (XLA_BUCKET,),
    ) -> None:
        self.model = random_model(schema, config, seed=_SEED)
        self.path = folder / "model"
        with tempfile.TemporaryDirectory() as assets:
            raw_ids = RawIds(
                schema, VOCABULARIES, pathlib.Path(assets), MAX_HISTORY
            )
            self.graph = ServingGraph(self.model, raw_ids)
            if not self.path.exists():
                self.graph.write(self.path, xla_buckets)

    @functools.cached_property
    def loaded(self) -> Any:
        """The SavedModel, which does without the assets of the exporter."""
        return tf.saved_model.load(str(self.path))

    def call(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Calls a signature as a server does, by name."""
        function = self.loaded.signatures[signature]
        tensors = {k: tf.constant(v) for k, v in inputs.items()}
        return {k: v.numpy() for k, v in function(**tensors).items()}

    def probability(
        self, inputs: dict[str, Any], signature: str = "serving_default"
    ) -> np.ndarray:
        """Returns the answer of a signature that scores."""
        return self.call(signature, inputs)["probability"]

    def encode(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Returns the states of the users of raw requests."""
        inputs, _ = signatures(self.model.schema, self.model.recipe)[
            "encode_user"
        ]
        given = {tensor.name: raw[tensor.name] for tensor in inputs}
        return self.call("encode_user", given)

    def score(self, state: dict[str, Any], raw: dict[str, Any]) -> np.ndarray:
        """Scores the candidates of raw requests from states."""
        candidates = only(raw, "request_time", "candidate_")
        return self.probability({**state, **candidates}, "score")

    def expected(self, ids: dict[str, Any]) -> np.ndarray:
        """Returns the answer of the Keras model."""
        return tf.sigmoid(self.model(ids).logits).numpy()


_exported = functools.cache(ExportedModel)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    # The cache makes one for all modules that import this.
    return _exported(made_once(tmp_path_factory, "exported", ExportedModel))
