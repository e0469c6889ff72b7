"""One run from its configuration to `result.json`."""

import contextlib
import hashlib
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.config_flags import all_values
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.paths import Location, is_remote
from sparsectr.metrics import Metrics
from sparsectr.training.devices import make_strategy, prepare_process
from sparsectr.training.floor_scores import floors
from sparsectr.training.load_model import check_same_store
from sparsectr.training.run_directory import RunDirectory, environment
from sparsectr.training.trainer import Trainer, peak_memory_bytes
from sparsectr.training.validation import VALIDATION, final_run
from sparsectr.training.warm_start import (
    BEFORE_TRAINING,
    WARM_START,
    WarmStart,
    find_warm_start,
    read_warm_start,
)
from sparsectr.training.workers import Workers

_ADDED_LATER = ("saved_model", "metrics_frozen_history")
"""What the export and the evaluation add to `result.json`."""


def train_and_evaluate(
    config: Config,
    data_dir: Location,
    run: RunDirectory,
    *,
    resume: bool,
    before: RunDirectory | None = None,
    workers: Workers | None = None,
) -> Metrics:
    """Trains, evaluates and writes `result.json`.

    Of several workers the chief calls it, and the others `follow_chief`.

    Args:
        config: What to run.
        data_dir: The store.
        run: Folder of the run.
        resume: Whether to go on with a run that is there.
        before: The run whose weights a new one goes on from.
        workers: Who trains, if several do.

    Returns:
        The exact metrics of the test split; in a run of `--validation`, which
        never reads it, the best ones of the validation.

    Raises:
        InputError: If the store or the folder is not usable, or the loss
            stops being finite, or the workers differ.
        ConnectionError: If a worker is lost.
    """
    if workers is None:
        prepare_process(config.train.seed, config.train.num_devices)
        workers = Workers(make_strategy(config.train.num_devices))
    with workers.watched():
        metrics = _train_and_evaluate(
            config, data_dir, run, resume, before, workers
        )
        workers.leave()
    return metrics


def follow_chief(
    config: Config | None,
    data_dir: Location | None,
    *,
    resume: bool,
    workers: Workers,
) -> None:
    """Trains with the chief, which writes what there is to write.

    Args:
        config: What to run; `None` for what the chief runs.
        data_dir: The store; `None` for where the chief has it.
        resume: Whether to go on with a run that is there.
        workers: Who trains.

    Raises:
        InputError: If the store is not usable, the loss stops being finite,
            or the workers differ.
        ConnectionError: If a worker is lost.
    """
    with (
        workers.watched(),
        tempfile.TemporaryDirectory() as scratch,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        plan = workers.share()
        shared = Config.from_dict(plan["config"])
        data_dir = data_dir or plan["data_dir"]
        store = Store(local_copy(data_dir), shared.data.leave_out)
        workers.check_same(_facts_of_worker(config or shared, store, resume))
        _refuse_warm_start(plan)
        prepare_process(shared.train.seed, num_devices=1)
        run = RunDirectory(scratch)
        run.create(shared, StoreIdentity.of(store), data_dir)
        trainer = Trainer(shared, store, run, workers.strategy, workers)
        trainer.train(resume=resume)
        if trainer.validation is None or trainer.validation.best is None:
            trainer.evaluate()
        workers.leave()


def _train_and_evaluate(
    config: Config,
    data_dir: Location,
    run: RunDirectory,
    resume: bool,
    before: RunDirectory | None,
    workers: Workers,
) -> Metrics:
    store = Store(local_copy(data_dir), config.data.leave_out)
    if workers.num_workers > 1:
        begun = before is not None or read_warm_start(run) is not None
        plan = workers.share(
            {
                "config": config.to_dict(),
                "data_dir": str(data_dir),
                "warm_start_of": run.location if begun else None,
            }
        )
        workers.check_same(_facts_of_worker(config, store, resume))
        _refuse_warm_start(plan)
        prepare_process(config.train.seed, num_devices=1)
    if resume and run.exists:
        check_same_store(run, store)
        warm_start = read_warm_start(run)
    else:
        warm_start = None
        if before is not None:
            warm_start = find_warm_start(before, config, store)
        more = {WARM_START: warm_start.to_dict()} if warm_start else None
        run.create(config, StoreIdentity.of(store), data_dir, more)
    trainer = Trainer(config, store, run, workers.strategy, workers, warm_start)
    kind = store.manifest["data_source"]
    print(f"{run.location}: {trainer.num_steps} steps on {data_dir} ({kind})")
    trainer.train(resume=resume)
    if trainer.validation is not None and trainer.validation.best is not None:
        best = trainer.validation.best
        metrics = best.metrics
        split, step = VALIDATION, best.step
        # As a resumed run has it, from whatever folder.
        if not is_remote(data_dir):
            data_dir = Path(data_dir).absolute()
        chosen = _chosen(config, str(data_dir), trainer, store, step)
    else:
        metrics, chosen = trainer.evaluate(), {}
        split, step = "test", trainer.num_steps_done
        run.log(step=trainer.num_steps, **metrics.to_dict())
    weights = config.train.evaluated_weights
    if chosen:
        weights += f", at the best step {step}"
    if config.train.ema_decay:
        print(f"Weights: {weights}")
    print(metrics.log_lines(), flush=True)
    # Resumed when it was done already, it may have these of its weights.
    known = run.read_result()
    added = {name: known[name] for name in _ADDED_LATER if name in known}
    run.write_json(
        "result.json",
        {
            "model": config.model.name,
            "seed": config.train.seed,
            "step": step,
            "split": split,
            "weights": weights,
            "metrics": metrics.to_dict(),
            "floors": floors(store, split),
            **_facts(trainer, store),
            "num_workers": workers.num_workers,
            **_before_training(run, warm_start, store),
            **chosen,
            "saved_model": None,
            **added,
        },
    )
    run.publish()
    return metrics


def _before_training(
    run: RunDirectory, warm_start: WarmStart | None, store: Store
) -> dict[str, Any]:
    """Returns where a run began, and what the run before said of its days."""
    if warm_start is None:
        return {}
    grown = {
        table.name: (table.size or 0) - warm_start.sizes[table.name]
        for table in store.schema.tables
    }
    return {
        "warm_start": {
            **warm_start.to_dict(),
            "new_rows": {name: count for name, count in grown.items() if count},
        },
        "before_training": run.read_json(BEFORE_TRAINING)["days"],
    }


def _refuse_warm_start(plan: Mapping[str, Any]) -> None:
    """Raises InputError, in all workers, if their run has a warm start."""
    location = plan["warm_start_of"]
    if location is not None:
        raise InputError(
            f"{location} began with --warm_start, which is for one host so "
            "far. Go on with it there, without TF_CONFIG."
        )


def _facts_of_worker(
    config: Config, store: Store, resume: bool
) -> dict[str, Any]:
    """Returns what has to be the same in all workers, by its name."""
    identity = StoreIdentity.of(store)
    schema = hashlib.sha256(store.schema.to_json().encode()).hexdigest()
    gpus = tf.config.get_visible_devices("GPU")
    return {
        "--resume": resume,
        **{f"--{name}": value for name, value in all_values(config).items()},
        "a store with the rows": identity.content,
        "a store with so many shards": identity.num_shards,
        "a store with the schema": schema,
        **{
            f"a store with the vocabulary of {table}": digest
            for table, digest in identity.vocabularies.items()
        },
        "so many GPUs": len(gpus),
        **{name: environment()[name] for name in ("sparsectr", "tensorflow")},
    }


def _chosen(
    config: Config, data_dir: str, trainer: Trainer, store: Store, step: int
) -> dict[str, Any]:
    """Returns and prints what a run of `--validation` has chosen."""
    train = config.train
    everything = Batches(
        store, "train", config.data, train.batch_size, train.seed
    )
    final = final_run(
        config,
        data_dir,
        best_step=step,
        num_requests=everything.num_requests,
        num_requests_older=trainer.batches.num_requests,
        num_batches=everything.num_batches,
    )
    done = trainer.num_steps_done
    stopped = ", where --patience ended the run" * (done < trainer.num_steps)
    print(
        f"best step: {step} of {done}{stopped}; the final run, on everything "
        "before the test:\n  python -m sparsectr.train "
        f"{shlex.join(final['flags'])}"
    )
    return {
        "best_step": step,
        "num_steps": done,
        "final_run": final,
    }


def _facts(trainer: Trainer, store: Store) -> dict[str, Any]:
    """Returns what was trained on, and what it took."""
    manifest = store.manifest
    requests = trainer.batches.count_requests(trainer.num_steps_done)
    tables = sum(
        table.num_rows * table.width
        for table in trainer.model.recipe.tables(store.schema)
    )
    return {
        "dataset": manifest["dataset"],
        "data_source": {
            "kind": manifest["data_source"],
            "files": manifest["sources"],
            "content": manifest["content"],
            "num_shards": len(store.shards),
        },
        "split_rule": manifest["split"],
        "num_parameters": {
            "dense": trainer.model.count_params() - tables,
            "embedding": tables,
        },
        "train_seconds": round(trainer.train_seconds, 3),
        "compile_seconds": round(trainer.compile_seconds, 3),
        "requests_per_second": round(
            requests / max(trainer.train_seconds, 1e-9), 1
        ),
        "peak_memory_bytes": peak_memory_bytes(),
    }
