"""Checks that a SavedModel gives the answers of the model it came from.

    python -m export.verify --model=models/sparsectr/1 --requests=requests.npz

`requests.npz` holds batches, each as arrays `<batch>/<input>` and the
expected `<batch>/probability`. The exit status says it all.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from export.signature import PROBABILITY
from sparsectr import command
from sparsectr.errors import InputError
from sparsectr.quiet_tensorflow import import_tensorflow_quietly, reason_of

TOLERANCE = 1e-6
"""Largest difference in probability that rounding explains in float32."""


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("model", None, "Folder of a version.", required=True)
    flags.DEFINE_string(
        "requests", None, "Batches with expected answers.", required=True
    )
    flags.DEFINE_float(
        "tolerance", TOLERANCE, "Largest difference in probability."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    import_tensorflow_quietly()
    batches = _read(Path(values.requests))
    difference, count = largest_difference(values.model, batches)
    print(
        f"{values.model}: largest difference {difference:.2g} in probability "
        f"over {count} candidates of {len(batches)} batches"
    )
    if not difference <= values.tolerance:
        raise InputError(
            f"{values.model} differs from the Keras model by {difference:.2g}; "
            f"at most {values.tolerance:.2g} is allowed."
        )


def largest_difference(
    model: str, batches: list[dict[str, Any]]
) -> tuple[float, int]:
    """Returns the largest difference in probability, and of how many.

    Args:
        model: Folder of the SavedModel.
        batches: Inputs by name, with the expected `probability`.

    Raises:
        InputError: If the folder holds no model with this signature.
    """
    import tensorflow as tf

    try:
        # The reference is held: without it the variables are gone.
        loaded = tf.saved_model.load(model)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"{model} is not a SavedModel: {reason_of(error)}"
        ) from error
    if "serving_default" not in loaded.signatures:
        raise InputError(f"{model} has no signature serving_default.")
    serve = loaded.signatures["serving_default"]
    differences, count = [], 0
    for batch in batches:
        expected = batch[PROBABILITY]
        inputs = {k: tf.constant(v) for k, v in batch.items()}
        del inputs[PROBABILITY]
        try:
            answer = serve(**inputs)[PROBABILITY].numpy()
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise InputError(
                f"{model} does not take the request: {reason_of(error)}"
            ) from error
        if answer.shape != expected.shape:
            raise InputError(
                f"{model} answers with shape {answer.shape}, not "
                f"{expected.shape}."
            )
        # np.max lets a NaN through, and a NaN fails every comparison.
        differences.append(np.max(np.abs(answer - expected), initial=0.0))
        count += expected.size
    return float(np.max(differences)), count


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            batches: dict[str, dict[str, Any]] = {}
            for key in arrays.files:
                batch, _, name = key.partition("/")
                batches.setdefault(batch, {})[name] = arrays[key]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not batches or any(PROBABILITY not in b for b in batches.values()):
        raise InputError(f"{path} has no batches with expected answers.")
    return list(batches.values())


if __name__ == "__main__":
    define_flags()
    command.run(main)
