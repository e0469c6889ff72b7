"""One run from its configuration to `result.json`."""

from typing import Any

from data_pipelines.store import Store
from data_pipelines.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.paths import Location
from sparsectr.metrics import Metrics
from sparsectr.training.devices import make_strategy, prepare_process
from sparsectr.training.load_model import check_same_store
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer, peak_memory_bytes


def train_and_evaluate(
    config: Config, data_dir: Location, run: RunDirectory, *, resume: bool
) -> Metrics:
    """Trains, evaluates and writes `result.json`.

    Args:
        config: What to run.
        data_dir: The store.
        run: Folder of the run.
        resume: Whether to go on with a run that is there.

    Returns:
        The exact metrics of the test split.

    Raises:
        InputError: If the store or the folder is not usable, or the loss
            stops being finite.
    """
    prepare_process(config.train.seed, config.train.num_devices)
    store = Store(local_copy(data_dir))
    if resume and run.exists:
        check_same_store(run, store)
    else:
        run.create(config, StoreIdentity.of(store), data_dir)
    strategy = make_strategy(config.train.num_devices)
    trainer = Trainer(config, store, run, strategy)
    kind = store.manifest["data_source"]
    print(f"{run.location}: {trainer.num_steps} steps on {data_dir} ({kind})")
    trainer.train(resume=resume)
    metrics = trainer.evaluate()
    print(metrics.log_line(), flush=True)
    run.log(step=trainer.num_steps, **metrics.to_dict())
    saved_model = run.read_result().get("saved_model")
    run.write_json("result.json", _result(trainer, store, metrics, saved_model))
    run.publish()
    return metrics


def _result(
    trainer: Trainer, store: Store, metrics: Metrics, saved_model: str | None
) -> dict[str, Any]:
    manifest = store.manifest
    requests = trainer.batches.count_requests(trainer.num_steps)
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
        "split": manifest["split"],
        "metrics": metrics.to_dict(),
        "num_parameters": {
            "dense": trainer.model.count_params() - tables,
            "embedding": tables,
        },
        "train_seconds": round(trainer.train_seconds, 3),
        "requests_per_second": round(
            requests / max(trainer.train_seconds, 1e-9), 1
        ),
        "peak_memory_bytes": peak_memory_bytes(),
        # Resumed when it was done already, it has one of these weights.
        "saved_model": saved_model,
    }
