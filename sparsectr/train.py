r"""Trains a model on a prepared data set, evaluates and exports it.

    python -m sparsectr.train --dataset=alibaba
    python -m sparsectr.train --dataset=movielens --data_dir=data/movielens \
        --workdir=runs/movielens --model.preset=sparsity-3 --learning_rate=0.002
    python -m sparsectr.train --workdir=runs/movielens --resume

Values that no flag gives are those of the recipes in configs/. The folder of
the run holds config.json, schema.json, environment.json, checkpoints,
TensorBoard events, metrics.jsonl and, at the end, result.json and the
SavedModel.

`--validation` leaves the test unread: it trains on the older part of what comes
before it, evaluates on the newest part (`data_pipelines.prepare` says where it
begins), keeps the best checkpoint too, exports nothing, and ends with the
flags of the final run, on all of it and for a fixed number of steps.

`--warm_start=RUN` begins with the weights, moments and average of a run that is
done, and its configuration where no flag says otherwise, on the days that were
added to its store since (docs/daily_updates.md). What RUN says of these days
before training on them is in result.json, as `before_training`.

Store and folder can be remote, such as s3://bucket/folder: the store is read
from a copy, and the run is written on this machine and sent after each
checkpoint. Both stay in SPARSECTR_CACHE (default: ~/.cache/sparsectr).

Several hosts train one model where each runs the same command with its own
TF_CONFIG (docs/several_hosts.md). `--batch_size` is that of all together; the
chief alone writes, and with `--resume` their number may be another.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from data_pipelines.stores.store import Store
from sparsectr import config_flags
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.paths import Location, join
from sparsectr.process import command
from sparsectr.process.compilation_cache import keep_compilations
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.training.cluster_spec import VARIABLE, ClusterSpec

if TYPE_CHECKING:
    from sparsectr.training.run_directory import RunDirectory
    from sparsectr.training.workers import Workers

DATA_ROOT = Path("data")
RUNS_ROOT = Path("runs")

_TRUE = ("true", "t", "1")
"""How absl takes a flag to be on."""

_REAL_ALIBABA_FILES = "https://tianchi.aliyun.com/dataset/56"


def define_flags() -> None:
    """Defines the flags of this command."""
    config_flags.define_config_flags(model=_resumed_model(sys.argv[1:]))
    flags.DEFINE_string(
        "data_dir",
        None,
        "Store that data_pipelines.prepare wrote (default: data/<dataset>; "
        "alibaba makes a synthetic sample where that is absent).",
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run (default: runs/<dataset>-<date>-<time>).",
    )
    flags.DEFINE_boolean(
        "resume", False, "Go on with the run in --workdir where it stopped."
    )
    flags.DEFINE_string(
        "warm_start",
        None,
        "Folder of a run that is done: go on from it, in a new run, on the "
        "days that its store has since.",
    )
    flags.DEFINE_boolean(
        "print_config", False, "Print the configuration as JSON and stop."
    )
    flags.DEFINE_string(
        "compilation_cache",
        None,
        "Folder in which XLA keeps what it has compiled for the CPU, for later "
        "runs with the same shapes; it only grows.",
    )
    flags.DEFINE_integer(
        "worker_wait",
        600,
        "Seconds to wait until all workers of TF_CONFIG are there.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "worker_timeout",
        60,
        "Seconds after which a worker that does not answer is lost, which ends "
        "the run of the others.",
        lower_bound=1,
    )
    flags.DEFINE_boolean(
        "export", True, "Write the SavedModel when training is done."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    if values.print_config:
        print(_config_to_print().to_json())
        return
    spec = ClusterSpec.from_environment()
    if spec is not None and values.warm_start is not None:
        raise InputError(
            "--warm_start is for one host so far, on one device or several. "
            f"Train there, without {VARIABLE}."
        )
    if spec is not None and not spec.is_chief:
        _follow_chief(spec)
        return
    before = _run_before()
    config, data_dir, run = _what_to_run(before, is_alone=spec is None)
    train = config.train
    # What is served is the final run, not one that chooses.
    exports = values.export and not train.validation
    store = _check_store(config, data_dir)
    # Not when training is done.
    if exports and not store.sampled_requests:
        raise InputError(
            f"{data_dir} keeps no logged requests to export with. Prepare it "
            "again with --sample_requests, or train with --noexport."
        )

    _load_tensorflow()
    from sparsectr.training.run import train_and_evaluate

    workers = None if spec is None else _join(spec, train.num_devices)
    train_and_evaluate(
        config,
        data_dir,
        run,
        resume=values.resume,
        before=before,
        workers=workers,
    )
    if exports:
        _export(run.location)


def _check_store(config: Config, data_dir: Location) -> Store:
    """Returns the store, if it is one to run the configuration on."""
    train = config.train
    if (train.patience or train.validate_every) and not train.validation:
        raise InputError("--patience and --validate_every need --validation.")
    store = Store(local_copy(data_dir), config.data.leave_out)
    dataset = store.manifest.get("dataset", config.dataset)
    if dataset != config.dataset:
        raise InputError(
            f"{data_dir} is a store of {dataset}, not of {config.dataset}: "
            f"train with --dataset={dataset}."
        )
    config.model.check_schema(store.schema)
    return store


def _follow_chief(spec: ClusterSpec) -> None:
    """Trains as one of several workers that does not write."""
    values = flags.FLAGS
    config, data_dir = None, values.data_dir
    num_devices = values.num_devices or 0
    # What goes on is the run of the chief, with its values.
    if not values.resume:
        config = config_flags.config_from_flags()
        data_dir = _find_store(config.dataset, data_dir, is_alone=False)
        # What is wrong with all is said by all, before they wait.
        _check_store(config, data_dir)
        num_devices = config.train.num_devices
    _load_tensorflow()
    from sparsectr.training.run import follow_chief

    follow_chief(
        config,
        data_dir,
        resume=values.resume,
        workers=_join(spec, num_devices),
    )


def _load_tensorflow() -> None:
    if flags.FLAGS.compilation_cache is not None:
        keep_compilations(flags.FLAGS.compilation_cache)
    # Only now: TensorFlow takes seconds, and bad flags should not wait.
    import_tensorflow_quietly()


def _join(spec: ClusterSpec, num_devices: int) -> "Workers":
    from sparsectr.training.workers import join_workers

    values = flags.FLAGS
    return join_workers(
        spec, num_devices, values.worker_wait, values.worker_timeout
    )


def _run_before() -> "RunDirectory | None":
    """Returns the run that a new one goes on from, if there is one."""
    from sparsectr.training.run_directory import RunDirectory

    values = flags.FLAGS
    if values.warm_start is None:
        return None
    if values.resume:
        raise InputError(
            "--warm_start begins a new run, which --resume goes on with "
            "without it."
        )
    before = RunDirectory.of(values.warm_start)
    dataset = before.read_config()[0].dataset
    if values.dataset not in (None, dataset):
        raise InputError(
            f"--warm_start: {values.warm_start} is a run of {dataset}, not of "
            f"{values.dataset}."
        )
    return before


def _what_to_run(
    before: "RunDirectory | None", *, is_alone: bool
) -> tuple[Config, Location, "RunDirectory"]:
    """Returns configuration, store and folder of the run."""
    from sparsectr.training.run_directory import RunDirectory

    values = flags.FLAGS
    if values.resume:
        if values.workdir is None:
            raise InputError("--resume needs the --workdir of the run.")
        run = RunDirectory.to_train(values.workdir, resume=True)
        if run.exists or values.dataset is None:
            config, data_dir = run.read_config()
            _check_same(config, run.location)
            config = config_flags.with_topology(config)
            return config, values.data_dir or data_dir, run
        config = config_flags.config_from_flags()
    else:
        if before is None:
            config = config_flags.config_from_flags()
        else:
            config, data_dir = before.read_config()
            config = config_flags.config_with_flags(config)
        workdir = values.workdir or (
            RUNS_ROOT / f"{config.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        )
        run = RunDirectory.to_train(workdir, resume=False)
    if before is not None:
        return config, values.data_dir or data_dir, run
    return config, _find_store(config.dataset, values.data_dir, is_alone), run


def _resumed_model(arguments: Sequence[str]) -> str | None:
    """Returns the model of the run that a command line goes on with, or from.

    The flags are its own then. What is wrong with the folder is said when the
    flags are parsed.
    """
    from sparsectr.training.run_directory import RunDirectory

    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--workdir", "-workdir")
    parser.add_argument("--warm_start", "-warm_start")
    parser.add_argument(
        "--resume", "-resume", nargs="?", const="true", default="false"
    )
    try:
        known, _ = parser.parse_known_args(list(arguments))
        is_resumed = known.resume.lower() in _TRUE
        run = known.workdir if is_resumed else known.warm_start
        if run is None:
            return None
        config = local_copy(join(run, "config.json"))
        return RunDirectory(config.parent).read_config()[0].model.name
    except (argparse.ArgumentError, InputError, OSError):
        return None


def _config_to_print() -> Config:
    """Returns what `--print_config` shows."""
    from sparsectr.training.run_directory import RunDirectory

    values = flags.FLAGS
    if not values.resume or values.workdir is None:
        return config_flags.config_from_flags()
    path = local_copy(join(values.workdir, "config.json"))
    config, _ = RunDirectory(path.parent).read_config()
    _check_same(config, values.workdir)
    return config


def _check_same(config: Config, location: str) -> None:
    """Raises InputError if a flag asks a resumed run to be another one."""
    differences = config_flags.contradictions(config)
    if differences:
        raise InputError(
            f"--resume cannot change a run: {location} has "
            f"{'; '.join(differences)}. Leave the flags out to go on."
        )


def _find_store(dataset: str, data_dir: str | None, is_alone: bool) -> Location:
    """Returns the store to train on; makes the synthetic sample for alibaba.

    Several workers would get in each other's way, so that none makes it.
    """
    if data_dir is not None:
        return data_dir
    path = DATA_ROOT / dataset
    if path.exists():
        return path
    if dataset != "alibaba":
        raise InputError(
            f"There is no store at {path}. Make one with `python -m "
            f"data_pipelines.prepare --dataset={dataset} --raw_dir=... "
            f"--data_dir={path}`, or name one by --data_dir."
        )
    path = DATA_ROOT / "alibaba_synthetic"
    if not (is_alone or path.exists()):
        raise InputError(
            f"There is no store at {DATA_ROOT / dataset}, and several workers "
            "make no sample. Name one by --data_dir."
        )
    print(
        f"\n*** No Alibaba files at {DATA_ROOT / dataset}: training on the "
        "built-in SYNTHETIC sample instead. Its numbers say nothing about "
        f"real data. The real files: {_REAL_ALIBABA_FILES} ***\n",
        file=sys.stderr,
        flush=True,
    )
    if not path.exists():
        from data_pipelines.prepare import prepare
        from data_pipelines.synthetic_alibaba import write_sample

        raw_dir = DATA_ROOT / "alibaba_synthetic_raw"
        if not raw_dir.exists():
            write_sample(raw_dir)
        prepare("alibaba", raw_dir, path)
    return path


def _export(workdir: str) -> None:
    """Writes and verifies the SavedModel in a process of its own.

    The export reads nothing but the folder of the run, so that what is
    served is what was saved.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "export.saved_model",
            f"--workdir={workdir}",
            f"--output={join(workdir, 'saved_model')}",
        ],
        # One process exports, whoever trained.
        env={k: v for k, v in os.environ.items() if k != VARIABLE},
        check=False,
    )
    if done.returncode != 0:
        raise InputError(
            f"The export of {workdir} failed; its message is above. Training "
            "is done and saved."
        )


if __name__ == "__main__":
    define_flags()
    command.run(main, config_flags.whose_flag)
