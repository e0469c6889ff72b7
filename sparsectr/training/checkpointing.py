"""Checkpoints from which a run goes on as if it had never stopped."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparsectr.errors import InputError
from sparsectr.optimizers.weight_average import WeightAverage
from sparsectr.process.quiet_tensorflow import reason_of
from sparsectr.training.train_step import TrainStep
from sparsectr.training.workers import Workers


class Checkpointing:
    """Saves and restores all the state of a run.

    That is model, optimizer, average of weights, step, the seeds of dropout
    and the running metrics. The reader has none: its order is a pure function
    of the step. Every weight is saved under its path, so that a checkpoint of
    another model, or of another version of one, is known by name.

    Of several workers the chief alone reads and writes, and the others get
    its values. All are to call the same functions.

    Args:
        folder: Where the checkpoints are.
        model: The model.
        optimizer: Its optimizer, built; `None` to restore the model alone.
        train_step: Whose running metrics are saved; `None` likewise.
        average: The average of the model's weights, if there is one.
        keep: Number of newest checkpoints to keep.
        workers: Who trains, if several do.

    Attributes:
        learned: What training changes, as checkpoints call it.

    Files:
        The best checkpoint, where a run has one, is in `folder`/best.
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        optimizer: Any = None,
        train_step: TrainStep | None = None,
        average: WeightAverage | None = None,
        keep: int = 2,
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers or Workers(tf.distribute.get_strategy())
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Lists of variables, not Keras objects: TensorFlow does not see the
        # layers that those keep in lists and dicts, nor seeds, nor metrics.
        parts: dict[str, Any] = {
            "model": _values(model.weights),
            # Numbered by Keras through the whole process, so not by name.
            "seeds": _seeds(model),
            "step": self.step,
        }
        if optimizer is not None:
            parts["optimizer"] = _values(optimizer.variables)
        if average is not None:
            parts["average"] = average.variables
        # What a run that goes on with other data takes over.
        self.learned: dict[str, Any] = {
            name: parts[name]
            for name in ("model", "optimizer", "average")
            if name in parts
        }
        self._mirrored = [
            variable
            for part in parts.values()
            for variable in tf.nest.flatten(part)
        ]
        # Each replica counts for itself. The sums are read by all workers at
        # once or by none, so what one of them saves is a copy.
        self._metrics: list[tuple[tf.Variable, Any]] = []
        if train_step is not None:
            for name in ("auc", "loss"):
                metric = _values(getattr(train_step, name).variables)
                parts[name] = {
                    path: tf.Variable(tf.zeros(each.shape), trainable=False)
                    for path, each in metric.items()
                }
                self._metrics += zip(
                    parts[name].values(), metric.values(), strict=True
                )
        self._is_whole = optimizer is not None
        self._checkpoint = tf.train.Checkpoint(**parts)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep
        )
        # The one before goes when the new one is whole.
        self._best = tf.train.CheckpointManager(
            self._checkpoint, str(folder / "best"), max_to_keep=1
        )

    @property
    def newest_step(self) -> int | None:
        """Steps that the newest checkpoint has behind it, if there is one."""
        path = self._manager.latest_checkpoint
        return None if path is None else int(path.rpartition("-")[2])

    def save(self, step: int) -> None:
        """Saves the state after `step` steps."""
        for copy, metric in self._metrics:
            copy.assign(metric)
        self._save(self._manager, step)

    def save_best(self, step: int) -> None:
        """Saves what was saved or restored last as the best one too."""
        self._save(self._best, step)

    def has_best(self, step: int) -> bool:
        """Whether the best one is there, and is that of `step`."""
        # TensorFlow writes the index last.
        return Path(f"{self._best_path(step)}.index").exists()

    def _best_path(self, step: int | None) -> str:
        return str(Path(self._best.directory) / f"ckpt-{step}")

    def _save(self, manager: tf.train.CheckpointManager, step: int) -> None:
        self.step.assign(step)
        if not self._workers.is_chief:
            return
        try:
            manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            # A full or read-only disk, which TensorFlow does not call OSError.
            folder = Path(manager.directory)
            for partial in folder.glob(f"ckpt-{step}_temp*"):
                shutil.rmtree(partial, ignore_errors=True)
            raise OSError(
                f"{folder}: the checkpoint of step {step} was not written: "
                f"{reason_of(error)}"
            ) from error

    def restore(self, best_step: int | None = None) -> int | None:
        """Restores the newest checkpoint, or the best.

        Args:
            best_step: Which step is the best; `None` for the newest.

        Returns:
            The number of steps it has behind it, or `None` if there is none.

        Raises:
            InputError: If the checkpoint does not fit the model or is
                damaged.
        """
        workers = self._workers
        own = self._read(best_step) if workers.is_chief else None
        step: int | None = workers.share(own)
        if step is not None:
            copies = [copy for copy, _ in self._metrics]
            workers.copy_from_chief([*self._mirrored, *copies])
            for copy, metric in self._metrics:
                metric.assign(copy)
        return step

    def _read(self, best_step: int | None) -> int | None:
        """Reads a checkpoint; see `restore`."""
        path = self._manager.latest_checkpoint
        # A kill may have come between the newest and its copy.
        if best_step not in (None, self.newest_step):
            path = self._best_path(best_step)
        if path is None:
            return None
        try:
            status = self._checkpoint.restore(path)
            if self._is_whole:
                status.assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()
        except (
            AssertionError,
            # What the reader of checkpoints itself raises.
            IndexError,
            RuntimeError,
            ValueError,
            tf.errors.OpError,
        ) as error:
            raise InputError(
                f"Checkpoint {path} is damaged or does not fit the model: "
                f"{reason_of(error)}"
            ) from error
        return int(self.step.numpy())


def _seeds(model: Any) -> list[Any]:
    weights = {id(weight) for weight in model.weights}
    return [
        variable.value
        for variable in model.variables
        if id(variable) not in weights
    ]


def _values(variables: Iterable[Any]) -> dict[str, Any]:
    return {variable.path: variable.value for variable in variables}
