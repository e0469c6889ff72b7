r"""A trained run to a SavedModel for TensorFlow Serving.

    python -m export.saved_model --workdir=runs/movielens \
        --output=models/sparsectr

writes models/sparsectr/<version>/, one above the newest there. Before it
says done, fresh processes load what was written as the server does, and
compare it with the Keras model on logged requests (`export.verify`).

Both folders can be remote, such as s3://bucket/folder. The version is then
verified on this machine, and `saved_model.pb`, which makes it a SavedModel,
is sent last.

Of a run of `--validation` the best checkpoint is exported, of others the last.

`--xla_buckets=1x1024x128` adds the signature serving_xla_b1_l1024_c128: one
request of 1024 behaviors and 128 candidates, no other shape, compiled. The
server has to run with --xla_gpu_compilation_enabled=true for it, on a GPU or
not: otherwise the warm-up of that signature keeps the version from loading.
"""

import errno
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.requests.buckets import Buckets
from data_pipelines.stores.store_identity import StoreIdentity
from export.graph.signature import signature_json, signatures
from export.requests.logged_requests import logged_batches
from export.requests.warm_up import FILE_NAME, warm_up_requests, write_warm_up
from sparsectr.calibration import FILE as CALIBRATION
from sparsectr.errors import InputError
from sparsectr.file_systems.mirror import publish
from sparsectr.file_systems.partial_folder import partial_folder
from sparsectr.file_systems.paths import file_system, is_remote, join
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

XlaBucket = tuple[int, int, int]

_MODEL_NAME = "sparsectr"


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
        "Store with the vocabularies, whose logged requests the export is "
        "warmed up and verified with (default: the one it was trained on).",
    )
    flags.DEFINE_list(
        "xla_buckets",
        [],
        "Shapes to add a compiled signature for, as "
        "<requests>x<history length>x<candidates>.",
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    xla_buckets = [_xla_bucket(text) for text in values.xla_buckets]
    import_tensorflow_quietly()

    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    if is_remote(values.output):
        path = _export_to(values.output, run, values.data_dir, xla_buckets)
    else:
        output = Path(values.output)
        path = str(export_run(run, values.data_dir, output, xla_buckets))
    _tell_run(run, path)
    print(f"SavedModel: {path}")


def _tell_run(run: Any, path: str) -> None:
    """Notes a version in `result.json` of its run, where that can be.

    The version is whole and verified, and a server may have loaded it: a run
    on a disk that can only be read is no reason to call it failed.
    """
    try:
        run.add_to_result("saved_model", path)
    except (InputError, OSError) as error:
        print(
            f"note: result.json of {run.location} does not name the version, "
            f"since it cannot be written: {error}",
            file=sys.stderr,
        )


def export_run(
    run: Any,
    data_dir: str | None,
    output: Path,
    xla_buckets: Sequence[XlaBucket] = (),
) -> Path:
    """Writes, verifies and then names a version.

    Args:
        run: The `RunDirectory` of a trained model.
        data_dir: Its store; `None` for where it was in training.
        output: Folder of the model.
        xla_buckets: B, L and C of each compiled signature.

    Returns:
        Folder of the new version.

    Raises:
        InputError: If run or store cannot be used, or the SavedModel does not
            give the model's answers.
        OSError: If it cannot be written.
    """
    from sparsectr.prediction.calibrated import read_calibration
    from sparsectr.training.load_model import load_model, open_store

    trained = load_model(run)
    if trained.checkpoint == "best":
        print(
            f"{run.location} is a run of --validation: this is its best "
            f"checkpoint, of step {trained.step}, and not the final run."
        )
    store = open_store(run, data_dir)
    output.mkdir(parents=True, exist_ok=True)
    # Not a number, so that no server looks at it before it has its name.
    with partial_folder(output, ".partial-") as partial:
        folder = partial / "model"
        calibration = read_calibration(run, trained)
        write_model(
            trained.model,
            trained.config,
            store,
            folder,
            xla_buckets,
            calibration,
        )
        _write_history(run, data_dir, folder / "assets.extra")
        _verify(folder)
        return _give_number(folder, output)


def _give_number(folder: Path, output: Path) -> Path:
    """Makes a whole version the newest one of a model."""
    while True:
        path = output / _next_version(p.name for p in output.iterdir())
        try:
            return folder.rename(path)
        except OSError as error:
            # Another export has just taken the number.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def write_model(
    model: Any,
    config: Any,
    store: Any,
    folder: Path,
    xla_buckets: Sequence[XlaBucket] = (),
    calibration: Any = None,
) -> None:
    """Writes a version, all but where it comes from.

    Args:
        model: The Keras model.
        config: The `Config` it was trained with.
        store: Store of its vocabularies and of requests to warm up with.
        folder: Where to; it is not there yet.
        xla_buckets: B, L and C of each compiled signature.
        calibration: The `Calibration` of the run; `None` if it has none.

    Raises:
        InputError: If the store keeps no logged requests.
        OSError: If it cannot be written.
    """
    from export.graph.serving_graph import ServingGraph
    from sparsectr.prediction.raw_ids import RawIds

    vocabularies = store.vocabularies()
    buckets = Buckets.for_config(config)
    # The longest histories, cut and padded to each bucket.
    longest = next(logged_batches(store, config.data, buckets.batch_sizes[-1]))
    with tempfile.TemporaryDirectory(dir=folder.parent) as assets:
        raw_ids = RawIds(
            store.schema, vocabularies, Path(assets), config.data.max_history
        )
        graph = ServingGraph(model, raw_ids, calibration)
        graph.write(folder, xla_buckets)
    (folder / "batching_params.pbtxt").write_text(
        buckets.batching_params_text(), "utf-8"
    )
    extra = folder / "assets.extra"
    extra.mkdir()
    description = signature_json(
        store.schema,
        config.model,
        fingerprint=graph.fingerprint,
        buckets=buckets.to_dict(),
        vocabularies=StoreIdentity.of(store).vocabularies,
        xla_buckets=xla_buckets,
    )
    _write_json(extra / "signature.json", description)
    records = warm_up_requests(
        signatures(store.schema, config.model, xla_buckets),
        longest.raw,
        buckets,
        graph.user_states,
    )
    write_warm_up(extra / FILE_NAME, records, _MODEL_NAME)


def _write_history(run: Any, data_dir: str | None, extra: Path) -> None:
    """Writes what a version was made from, and how good it was."""
    from sparsectr.training.run_directory import environment

    for name in ("config", "schema", "store", "environment"):
        shutil.copy(run.path / f"{name}.json", extra)
    if (run.path / CALIBRATION).exists():
        shutil.copy(run.path / CALIBRATION, extra)
    result = run.read_result()
    if result:
        # Another version's path, or none.
        result.pop("saved_model", None)
        _write_json(extra / "result.json", result)
    config, trained_on = run.read_config()
    _write_json(
        extra / "origin.json",
        {
            "workdir": _absolute(run.location),
            "data_dir": _absolute(data_dir or trained_on),
            "weights": config.train.evaluated_weights,
            "exported_with": environment(),
        },
    )


def _absolute(location: str) -> str:
    return location if is_remote(location) else str(Path(location).absolute())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def _export_to(
    url: str,
    run: Any,
    data_dir: str | None,
    xla_buckets: Sequence[XlaBucket],
) -> str:
    """Writes and verifies a version here, then sends it."""
    with tempfile.TemporaryDirectory() as folder:
        path = export_run(run, data_dir, Path(folder), xla_buckets)
        files = file_system(url).walk(url.rstrip("/"))
        names = {name.partition("/")[0] for name in files}
        version = join(url, _next_version(names))
        publish(path, version, last=("saved_model.pb",))
    return version


def _verify(folder: Path) -> None:
    """Compares with the Keras model, in processes that have never seen it."""
    done = subprocess.run(
        [sys.executable, "-m", "export.verify", str(folder)], check=False
    )
    if done.returncode != 0:
        raise InputError(
            "The SavedModel did not pass export.verify, whose message is "
            "above; nothing was written."
        )


def _next_version(names: Iterable[str]) -> str:
    versions = [int(name) for name in names if name.isdigit()]
    return str(max(versions, default=0) + 1)


def _xla_bucket(text: str) -> XlaBucket:
    try:
        sizes = [int(size) for size in text.split("x")]
        batch, length, num_candidates = sizes
        if min(sizes) < 1:
            raise ValueError
    except ValueError:
        raise InputError(
            f"--xla_buckets={text} is no shape such as 1x1024x128."
        ) from None
    return batch, length, num_candidates


if __name__ == "__main__":
    define_flags()
    command.run(main)
