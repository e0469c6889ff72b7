r"""The Keras model's answers to logged requests, for `export.verify`.

    python -m export.checks.keras_answers --workdir=RUN --data_dir=STORE \
        --output=DIR

A process of its own: it reads the run, and the ids of the store as training
does, and never sees the SavedModel. The folder gets `requests.tfrecord`,
batches of the very same requests as they were logged, which a client would
send, and `answers.npz`: for each of them `<number>/probability`,
`<number>/mask`, `<number>/label` and `<number>/is_drawn`, of all weights
`weight_bytes`, their size, and `weights`, their digests, `is_mixed`, whether
the model computes in bfloat16, and `vocabularies`, their digests as JSON.

Last come batches with values drawn from the whole of every table, since those
of a few requests are mostly the frequent ones.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from absl import flags

from data_pipelines.requests.raw_tensors import PROBABILITY
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from export.checks.weight_digest import weight_digest
from export.graph.signature import WHOLE_PASS
from export.requests.logged_requests import LoggedBatch, logged_batches
from export.requests.warm_up import write_warm_up
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.schema import PADDING_ID, DatasetSchema, Prefix

REQUESTS = "requests.tfrecord"
ANSWERS = "answers.npz"

_BATCH_SIZE = 32


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("data_dir", None, "Its store.", required=True)
    flags.DEFINE_string("output", None, "Where to write.", required=True)


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    import_tensorflow_quietly()
    import tensorflow as tf

    from sparsectr.prediction.calibrated import (
        read_calibration,
        served_probability,
    )
    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    trained = load_model(run)
    calibration = read_calibration(run, trained)
    store = open_store(run, values.data_dir)
    vocabularies = store.vocabularies()
    weights = [weight.numpy() for weight in trained.model.weights]
    answers: dict[str, Any] = {
        "weight_bytes": sum(weight.nbytes for weight in weights),
        "is_mixed": trained.config.train.mixed_precision,
        "weights": [weight_digest(weight) for weight in weights],
        "vocabularies": json.dumps(run.read_store().vocabularies),
    }
    batches = list(logged_batches(store, trained.config.data, _BATCH_SIZE))
    # The longest and the shortest histories.
    drawn = [
        _draw(store.schema, vocabularies, batch)
        for batch in (batches[0], batches[-1])
    ]
    specs = {
        name: tf.TensorSpec([None] * value.ndim, value.dtype)
        for name, value in batches[0].ids.items()
    }

    # A graph, as in training and evaluation. In bfloat16 it rounds otherwise
    # than operations that run one by one.
    @tf.function(input_signature=[specs], autograph=False)
    def predict(inputs: dict[str, Any]) -> Any:
        logits = trained.model(inputs, training=False).logits
        return served_probability(
            logits, calibration, store.schema.negative_rate
        )

    requests = []
    for number, (raw, ids) in enumerate([*batches, *drawn]):
        answers[f"{number}/{PROBABILITY}"] = predict(ids).numpy()
        answers[f"{number}/mask"] = ids["candidate_mask"]
        answers[f"{number}/label"] = ids["label"]
        answers[f"{number}/is_drawn"] = number >= len(batches)
        requests.append((WHOLE_PASS, raw))
    output = Path(values.output)
    write_warm_up(output / REQUESTS, requests, "sparsectr")
    np.savez(output / ANSWERS, **answers)


def _draw(
    schema: DatasetSchema,
    vocabularies: Mapping[str, Vocabulary],
    batch: LoggedBatch,
) -> LoggedBatch:
    """Returns a copy with any values that the tables have rows for."""
    random = np.random.default_rng(0)
    raw, ids = dict(batch.raw), dict(batch.ids)
    masks: dict[Prefix, Any] = {
        "user": np.ones(len(ids["request_time"]), bool),
        "behavior": ids["behavior_time"] > 0,
        "candidate": ids["candidate_mask"],
    }
    for prefix, is_real in masks.items():
        for field in schema.ids(prefix):
            name = f"{prefix}_{field.name}"
            vocabulary, shape = vocabularies[field.table], raw[name].shape
            known = vocabulary.values
            if known is None:
                known = pa.array(random.integers(-(2**62), 2**62, 1000))
                known = known.cast(arrow_type(vocabulary.table))
            if not len(known):
                continue
            places = random.integers(0, len(known), raw[name].size)
            values = known.take(pa.array(places))
            raw[name] = values.to_numpy(zero_copy_only=False).reshape(shape)
            new = vocabulary.encode(pa.chunked_array([values])).reshape(shape)
            real = is_real[..., None] if field.is_set else is_real
            ids[name] = np.where(real, new, PADDING_ID).astype(np.int32)
    return LoggedBatch(raw, ids)


if __name__ == "__main__":
    define_flags()
    command.run(main)
