"""Checkpoints from which a run goes on as if it had never stopped."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from sparsectr.errors import InputError
from sparsectr.training.train_step import TrainStep


class Checkpointing:
    """Saves and restores all the state of a run.

    That is model, optimizer, step, the seeds of dropout and the running
    metrics. The reader has none: its order is a pure function of the step.

    Args:
        folder: Where the checkpoints are.
        model: The model.
        optimizer: Its optimizer, built; `None` to restore the model alone.
        train_step: Whose running metrics are saved; `None` likewise.
        keep: Number of newest checkpoints to keep.
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        optimizer: Any = None,
        train_step: TrainStep | None = None,
        keep: int = 2,
    ) -> None:
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        extra = tf.Module()
        # Neither seeds nor metrics of Keras are trackable themselves.
        extra.seeds = [v.value for v in model.variables if "seed" in v.path]
        if train_step is not None:
            metrics = (train_step.auc, train_step.loss)
            extra.metrics = [v.value for m in metrics for v in m.variables]
        parts = {"model": model, "step": self.step, "extra": extra}
        if optimizer is not None:
            parts["optimizer"] = optimizer
        self._is_whole = optimizer is not None
        self._checkpoint = tf.train.Checkpoint(**parts)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep
        )

    def save(self, step: int) -> None:
        """Saves the state after `step` steps."""
        self.step.assign(step)
        try:
            self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            # A full or read-only disk, which TensorFlow does not call OSError.
            reason = str(error.message).splitlines()[0]
            raise OSError(
                f"{self._manager.directory}: the checkpoint of step {step} "
                f"was not written: {reason}"
            ) from error

    def restore(self) -> int | None:
        """Restores the newest checkpoint.

        Returns:
            The number of steps it has behind it, or `None` if there is none.

        Raises:
            InputError: If the checkpoint does not fit the model or is
                damaged.
        """
        newest = self._manager.latest_checkpoint
        if newest is None:
            return None
        try:
            status = self._checkpoint.restore(newest)
            if self._is_whole:
                status.assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"Checkpoint {newest} does not fit the model: {reason}"
            ) from error
        return int(self.step.numpy())
