"""A trained model from the folder of its run."""

from typing import NamedTuple

from data_pipelines.stores.store import Store
from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.models.ranking_model import RankingModel
from sparsectr.optimizers.weight_average import WeightAverage
from sparsectr.schema import DatasetSchema
from sparsectr.training.checkpointing import Checkpointing
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.validation import best_of, evaluations_in
from sparsectr.training.warm_start import read_warm_start


class TrainedModel(NamedTuple):
    """A model with the weights of a run's best checkpoint, or its last.

    Attributes:
        model: The Keras model. Its weights are those that the configuration
            calls `evaluated_weights`.
        config: The configuration of the run.
        schema: What the model was built from.
        step: Steps that it was trained.
        checkpoint: "best", in a run of `--validation`, or "last".
    """

    model: RankingModel
    config: Config
    schema: DatasetSchema
    step: int
    checkpoint: str


def load_model(run: RunDirectory) -> TrainedModel:
    """Builds a run's model and restores its weights.

    Those of the best evaluation where the run was one of `--validation`, and
    of the newest checkpoint otherwise, or before the first evaluation.

    Raises:
        InputError: If there is no run, or it has no checkpoint yet.
    """
    config, _ = run.read_config()
    schema = run.read_schema()
    model = config.model.build(schema, config.dtype)
    decay = config.train.ema_decay
    weights = model.trainable_variables
    average = WeightAverage(decay, weights) if decay else None
    checkpointing = Checkpointing(run.checkpoints, model, average=average)
    newest = checkpointing.newest_step
    if newest is None:
        raise InputError(f"{run.location} has no checkpoint yet.")
    evaluations = evaluations_in(
        # The rest was on its way when the run stopped.
        [line for line in run.read_log() if line["step"] <= newest]
    )
    best = best_of(evaluations)
    step = checkpointing.restore(None if best is None else best.step) or 0
    if average is not None:
        before = read_warm_start(run)
        average.replace(step + (before.steps if before else 0))
    return TrainedModel(
        model, config, schema, step, "last" if best is None else "best"
    )


def open_store(run: RunDirectory, data_dir: str | None) -> Store:
    """Opens the store of a run, or another one whose ids mean the same.

    Args:
        run: The run.
        data_dir: Where the store is; `None` for where it was in training.

    Raises:
        InputError: If there is none, or its ids are not those of the run; or
            if there is another one by now where it was in training.
    """
    config, trained_on = run.read_config()
    store = Store(local_copy(data_dir or trained_on), config.data.leave_out)
    expected, found = run.read_store(), StoreIdentity.of(store)
    problem = expected.other_ids(found)
    if problem is not None:
        raise InputError(
            f"{store.path} is not what {run.location} was trained on: "
            f"{problem}, so the ids mean other things. Name its own store by "
            "--data_dir, or train anew on this one."
        )
    problem = expected.other_rows(found)
    if problem is not None and data_dir is None:
        raise InputError(
            f"{store.path} is not what {run.location} was trained on any "
            f"more: {problem}. Name its own store by --data_dir, or this one "
            "if it is meant."
        )
    return store


def check_same_store(run: RunDirectory, store: Store) -> None:
    """Checks that a run can go on with a store.

    Raises:
        InputError: If the store would give other batches than its own one.
    """
    expected, found = run.read_store(), StoreIdentity.of(store)
    problem = expected.other_ids(found) or expected.other_rows(found)
    if problem is not None:
        raise InputError(
            f"--resume cannot go on with {run.location} on {store.path}: "
            f"{problem}. Name the store that it began with by --data_dir, or "
            "train anew in another --workdir."
        )
