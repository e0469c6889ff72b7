"""The training loop."""

import contextlib
import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.batches import Batches
from data_pipelines.reader import element_spec, read
from data_pipelines.store import Store
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.metrics import Metrics
from sparsectr.peak_memory import peak_resident_bytes
from sparsectr.progress import Progress
from sparsectr.training.checkpointing import Checkpointing
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.scoring import score_requests
from sparsectr.training.train_step import PredictStep, make_train_step


class Trainer:
    """Trains, evaluates and saves one model.

    Args:
        config: What to train and how.
        store: The data.
        run: Where the run's files go.
        strategy: The devices.

    Attributes:
        model: The Keras model.
        batches: The training batches.
        num_steps: Steps of the whole run.
        train_step: The compiled step, with the running metrics.
        train_seconds: Seconds spent in the loop, over all resumed parts.

    Raises:
        InputError: If there is nothing to train on, or the batch size cannot
            be divided among the devices.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        run: RunDirectory,
        strategy: tf.distribute.Strategy,
    ) -> None:
        train = config.train
        self._config = config
        self._store = store
        self._run = run
        self._strategy = strategy
        replicas = strategy.num_replicas_in_sync
        for name in ("batch_size", "eval_batch_size"):
            size = getattr(train, name)
            if size % replicas:
                raise InputError(
                    f"--{name}={size} cannot be divided among {replicas} "
                    "devices."
                )
        self.batches = Batches(
            store, "train", config.data, train.batch_size, train.seed
        )
        if self.batches.num_requests == 0:
            raise InputError(f"{store.path} has no training requests.")
        self.num_steps = train.epochs * self.batches.num_batches
        if train.max_steps:
            self.num_steps = min(self.num_steps, train.max_steps)
        with strategy.scope():
            self.model = config.model.build(store.schema, config.dtype)
        self.train_step = make_train_step(self.model, train, strategy)
        self._checkpointing = Checkpointing(
            run.checkpoints,
            self.model,
            self.train_step.optimizer,
            self.train_step,
            keep=train.keep_checkpoints,
        )
        self.train_seconds = 0.0

    def train(self, resume: bool = False) -> None:
        """Runs the loop to its end and saves the last state.

        Args:
            resume: Whether to go on from the newest checkpoint.

        Raises:
            InputError: If loss or weights are not finite, or a checkpoint
                does not fit.
            OSError: If a checkpoint cannot be written.
        """
        first = (self._checkpointing.restore() or 0) if resume else 0
        before_stop = self._run.drop_log_after(first)
        events = tf.summary.create_file_writer(str(self._run.tensorboard))
        with (
            contextlib.closing(events),
            Progress(
                "train", self.num_steps, "step", first=first, delay=0
            ) as bar,
        ):
            self._run_steps(first, before_stop, bar, events)

    def _run_steps(
        self,
        first: int,
        before_stop: dict[str, Any],
        bar: Progress,
        events: Any,
    ) -> None:
        """Runs the steps from `first` on; see `train`."""
        train = self._config.train
        start = time.monotonic() - before_stop.get("seconds", 0.0)
        before: tuple[int, tf.Tensor] | None = None
        dataset = self._distributed(self.batches, first, self.num_steps)
        for step, batch in enumerate(dataset, first):
            if step % self.batches.num_batches == 0:
                self.train_step.reset_metrics()
            loss = self.train_step(batch)
            # The loss of the step before is looked at while this one runs:
            # the device never waits for the host.
            if before is not None:
                self._check_loss(*before)
            before = step, loss
            done = step + 1
            if done % train.log_every == 0 or done == self.num_steps:
                self.train_seconds = time.monotonic() - start
                self._log(done, bar, events)
            if done % train.checkpoint_every == 0 or done == self.num_steps:
                self._check_loss(step, loss)
                self._check_weights(step)
                self._checkpointing.save(done)
                self._run.publish()
        self.train_seconds = time.monotonic() - start

    def evaluate(self, split: str = "test") -> Metrics:
        """Returns the exact metrics of a split, nothing dropped.

        Raises:
            InputError: If the split has no requests.
        """
        config = self._config
        batches = Batches(
            self._store, split, config.data, config.train.eval_batch_size, None
        )
        replicas = self._strategy.num_replicas_in_sync
        predict = PredictStep(
            self.model,
            self._strategy,
            element_spec(batches, batches.batch_size // replicas),
        )
        dataset = self._distributed(batches, 0, batches.num_batches)
        return score_requests(predict, batches, dataset).metrics()

    def _distributed(self, batches: Batches, first: int, last: int) -> Any:
        """Returns the batches of some steps, per replica."""

        def of_worker(context: Any) -> tf.data.Dataset:
            replicas = context.num_replicas_in_sync
            own = replicas // context.num_input_pipelines
            start = own * context.input_pipeline_id
            return read(
                batches,
                first,
                last,
                parts=range(start, start + own),
                num_parts=replicas,
            )

        return self._strategy.distribute_datasets_from_function(of_worker)

    def _check_loss(self, step: int, loss: tf.Tensor) -> None:
        """Stops the run if the loss of a step is not finite."""
        value = float(loss)
        if not math.isfinite(value):
            raise self._bad_step(step, f"The loss is {value} at")

    def _check_weights(self, step: int) -> None:
        """Stops the run if a step has left a weight that is not finite.

        Its loss, which was taken before the update, does not tell.
        """
        for variable in self.model.trainable_variables:
            if not tf.reduce_all(tf.math.is_finite(variable.value)):
                raise self._bad_step(step, f"{variable.path} is not finite at")

    def _bad_step(self, step: int, what: str) -> InputError:
        """Saves the batch of a step; returns the error that names it."""
        user, request_time = self.batches.users(step)
        path = self._run.path / f"bad_batch_step_{step}.npz"
        arrays: dict[str, Any] = dict(self.batches.batch(step))
        np.savez_compressed(path, **arrays)
        requests = ", ".join(
            f"user {u} at {t}"
            for u, t in zip(user[:3], request_time[:3], strict=True)
        )
        return InputError(
            f"{what} step {step} (the first is 0). Its batch of {len(user)} "
            f"requests ({requests}, ...) is in {path}."
        )

    def _log(self, done: int, bar: Progress, events: Any) -> None:
        loss = float(self.train_step.loss.result())
        auc = float(self.train_step.auc.result())
        bar.advance(done - bar.n, f"loss {loss:.4f}, AUC {auc:.4f}")
        self._run.log(
            step=done,
            loss=loss,
            running_auc=auc,
            seconds=round(self.train_seconds, 3),
        )
        with events.as_default(step=done):
            tf.summary.scalar("train/loss", loss)
            tf.summary.scalar("train/running_auc", auc)
        events.flush()


def peak_memory_bytes() -> int:
    """Returns the peak memory of this process, or of its first GPU."""
    if tf.config.list_physical_devices("GPU"):
        info = tf.config.experimental.get_memory_info("GPU:0")
        return int(info["peak"])
    return peak_resident_bytes()
