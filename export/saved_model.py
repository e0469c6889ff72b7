r"""A trained run to a SavedModel for TensorFlow Serving.

    python -m export.saved_model --workdir=runs/movielens \
        --output=models/sparsectr

writes models/sparsectr/<version>/, one above the newest there. Before it
says done, a fresh process loads what was written and compares it with the
Keras model on real requests (`export.verify`).

Both folders can be remote, such as s3://bucket/folder. The version is then
verified on this machine, and `saved_model.pb`, which makes it a SavedModel,
is sent last.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from export.signature import PROBABILITY, serving_signature
from sparsectr import command
from sparsectr.errors import InputError
from sparsectr.file_systems.paths import (
    is_folder,
    is_remote,
    join,
    list_folder,
)
from sparsectr.file_systems.publish import publish
from sparsectr.quiet_tensorflow import import_tensorflow_quietly, reason_of

_NUM_VERIFICATION_BATCHES = 4
_VERIFICATION_BATCH_SIZE = 8


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the model; a numbered version is written into it.",
        required=True,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Store whose test requests the export is verified with (default: the "
        "one it was trained on).",
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    import_tensorflow_quietly()

    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    trained = load_model(run)
    store = open_store(run, values.data_dir)
    requests = verification_requests(store, trained.config.data)
    if is_remote(values.output):
        path = _export_to(values.output, trained.model, run, requests)
    else:
        path = str(
            export_model(trained.model, run, Path(values.output), requests)
        )
    result = run.read_result()
    if result:
        result["saved_model"] = path
        run.write_json("result.json", result)
        run.publish()
    print(f"SavedModel: {path}")


def verification_requests(store: Any, config: Any) -> list[dict[str, Any]]:
    """Returns a few batches of real requests, of different lengths.

    Args:
        store: Where they come from: its test split, or its training split
            if that is empty.
        config: The `DataConfig` of the run.

    Raises:
        InputError: If the store has no requests at all.
    """
    from data_pipelines.batches import Batches

    split = "test" if store.num_requests("test") else "train"
    batches = Batches(store, split, config, _VERIFICATION_BATCH_SIZE, None)
    if batches.num_requests == 0:
        raise InputError(f"{store.path} has no requests to verify with.")
    count = min(_NUM_VERIFICATION_BATCHES, batches.num_batches)
    steps = np.linspace(0, batches.num_batches - 1, count).astype(int)
    return [batches.batch(int(step)) for step in steps]


def export_model(
    model: Any, run: Any, output: Path, requests: list[dict[str, Any]]
) -> Path:
    """Writes, verifies and then names a version.

    Args:
        model: The trained Keras model.
        run: The `RunDirectory` it comes from.
        output: Folder of the model.
        requests: Batches to verify with.

    Returns:
        Folder of the new version.

    Raises:
        InputError: If the SavedModel does not give the model's answers.
        OSError: If it cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    # Not a number, so that no server looks at it before it has its name.
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=output))
    try:
        _write(model, partial / "model")
        for name in ("config.json", "schema.json", "environment.json"):
            extra = partial / "model" / "assets.extra"
            extra.mkdir(exist_ok=True)
            shutil.copy(run.path / name, extra / name)
        _verify(model, partial, requests)
        path = output / _next_version(p.name for p in output.iterdir())
        (partial / "model").rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _export_to(
    url: str, model: Any, run: Any, requests: list[dict[str, Any]]
) -> str:
    """Writes and verifies a version here, then sends it."""
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(model, run, Path(folder), requests)
        names = list_folder(url) if is_folder(url) else []
        version = join(url, _next_version(names))
        publish(path, version, last=("saved_model.pb",))
    return version


def _write(model: Any, path: Path) -> None:
    import keras
    import tensorflow as tf

    signature = serving_signature(model.schema)

    def serve(inputs: dict[str, Any]) -> dict[str, Any]:
        return {PROBABILITY: tf.sigmoid(model(inputs, training=False))}

    # Without `track`: it would write every weight a second time.
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", serve, input_signature=[signature])
    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:
        # A full or read-only disk, which TensorFlow does not call OSError.
        raise OSError(f"{path} was not written: {reason_of(error)}") from error


def _verify(model: Any, folder: Path, requests: list[dict[str, Any]]) -> None:
    """Compares with the Keras model, in a process that has never seen it."""
    import tensorflow as tf

    arrays: dict[str, Any] = {}
    for index, batch in enumerate(requests):
        logits = model({k: tf.constant(v) for k, v in batch.items()})
        for name in serving_signature(model.schema):
            arrays[f"{index}/{name}"] = batch[name]
        arrays[f"{index}/{PROBABILITY}"] = tf.sigmoid(logits).numpy()
    np.savez(folder / "requests.npz", **arrays)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "export.verify",
            f"--model={folder / 'model'}",
            f"--requests={folder / 'requests.npz'}",
        ],
        check=False,
    )
    if done.returncode != 0:
        raise InputError(
            "The SavedModel does not give the answers of the Keras model; "
            "nothing was written."
        )


def _next_version(names: Iterable[str]) -> str:
    versions = [int(name) for name in names if name.isdigit()]
    return str(max(versions, default=0) + 1)


if __name__ == "__main__":
    define_flags()
    command.run(main)
