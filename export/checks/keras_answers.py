r"""The Keras model's answers to held-out requests, for `export.verify`.

    python -m export.checks.keras_answers --workdir=RUN --data_dir=STORE \
        --output=DIR

A process of its own: it reads the run and the store as training does and
never sees the SavedModel. The folder gets `requests.tfrecord`, batches of
requests as a client would send them, and `answers.npz`: for each of them
`<number>/probability`, `<number>/mask`, `<number>/label` and
`<number>/is_drawn`, of all weights `weight_bytes`, their size, and `weights`,
their digests, and `is_mixed`, whether the model computes in bfloat16.

Last come batches with ids drawn from the whole of every table, since those of
a few requests are mostly the frequent ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from export.checks.weight_digest import weight_digest
from export.contract.signature import PROBABILITY, WHOLE_PASS
from export.requests.held_out import Batch, held_out_batches
from export.requests.raw_requests import RawRequests, vocabularies_of
from export.requests.warm_up import write_warm_up
from sparsectr import command
from sparsectr.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema

REQUESTS = "requests.tfrecord"
ANSWERS = "answers.npz"

_BATCH_SIZE = 32
_NUM_BATCHES = 8


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

    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    trained = load_model(run)
    store = open_store(run, values.data_dir)
    raw = RawRequests(store.schema, vocabularies_of(store))
    weights = [weight.numpy() for weight in trained.model.weights]
    answers: dict[str, Any] = {
        "weight_bytes": sum(weight.nbytes for weight in weights),
        "is_mixed": trained.config.train.mixed_precision,
        "weights": [weight_digest(weight) for weight in weights],
    }
    batches = held_out_batches(
        store, trained.config.data, _BATCH_SIZE, _NUM_BATCHES
    )
    # The shortest and the longest histories.
    drawn = [_draw(store.schema, batch) for batch in (batches[0], batches[-1])]
    specs = {
        name: tf.TensorSpec([None] * value.ndim, value.dtype)
        for name, value in batches[0].items()
    }

    # A graph, as in training and evaluation. In bfloat16 it rounds otherwise
    # than operations that run one by one.
    @tf.function(input_signature=[specs], autograph=False)
    def predict(inputs: dict[str, Any]) -> Any:
        return tf.sigmoid(trained.model(inputs, training=False))

    requests = []
    for number, batch in enumerate([*batches, *drawn]):
        answers[f"{number}/{PROBABILITY}"] = predict(batch).numpy()
        answers[f"{number}/mask"] = batch["candidate_mask"]
        answers[f"{number}/label"] = batch["label"]
        answers[f"{number}/is_drawn"] = number >= len(batches)
        requests.append((WHOLE_PASS, raw.of(batch)))
    output = Path(values.output)
    write_warm_up(output / REQUESTS, requests, "sparsectr")
    np.savez(output / ANSWERS, **answers)


def _draw(schema: DatasetSchema, batch: Batch) -> Batch:
    """Returns a copy whose ids are any that stand for a value."""
    random = np.random.default_rng(0)
    found = dict(batch)
    for prefix, fields, is_real in (
        ("user", schema.user_fields, True),
        ("behavior", schema.behavior_fields, batch["behavior_time"] > 0),
        ("candidate", schema.candidate_fields, batch["candidate_mask"]),
    ):
        for field in fields:
            size = schema.table(field.table).size or 0
            ids = batch[f"{prefix}_{field.name}"]
            if size > NUM_RESERVED_IDS:
                new = random.integers(NUM_RESERVED_IDS, size, ids.shape)
                ids = np.where(is_real, new.astype(ids.dtype), ids)
            found[f"{prefix}_{field.name}"] = ids
    return found


if __name__ == "__main__":
    define_flags()
    command.run(main)
