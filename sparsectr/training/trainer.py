"""The training loop."""

import contextlib
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.reading.batches import Batches
from data_pipelines.reading.reader import element_spec, read
from data_pipelines.stores.store import Store
from data_pipelines.stores.unseen_ids import unseen_before_validation
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.metrics import Metrics
from sparsectr.process.peak_memory import peak_resident_bytes
from sparsectr.process.progress import Progress
from sparsectr.schema import OUT_OF_VOCABULARY_ID
from sparsectr.training.checkpointing import Checkpointing
from sparsectr.training.compilation import Shape, worth_compiling
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.scoring import score_requests
from sparsectr.training.train_step import PredictStep, make_train_step
from sparsectr.training.validation import VALIDATION, Validation, check_parts
from sparsectr.training.warm_start import (
    BEFORE_TRAINING,
    WarmStart,
    restore_from,
)
from sparsectr.training.workers import Workers


class Trainer:
    """Trains, evaluates and saves one model.

    Args:
        config: What to train and how.
        store: The data.
        run: Where the run's files go.
        strategy: The devices.
        workers: Who trains, if several do. All have the same batches before
            them and read parts of their own; the chief alone writes to `run`
            what is kept.
        warm_start: Where it begins, if not from nothing.

    Attributes:
        model: The Keras model.
        batches: The training batches.
        num_steps: Steps of the whole run, if nothing stops it.
        num_steps_done: Steps that it has behind it.
        validation: The evaluations of a run of `--validation`, else `None`.
        train_step: The compiled step, with the running metrics.
        train_seconds: Seconds spent in the loop, over all resumed parts,
            without evaluations.

    Raises:
        InputError: If there is nothing to train or to evaluate on, or the
            batch size cannot be divided among the devices.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        run: RunDirectory,
        strategy: tf.distribute.Strategy,
        workers: Workers | None = None,
        warm_start: WarmStart | None = None,
    ) -> None:
        train = config.train
        self._workers = workers or Workers(strategy)
        self._warm_start = warm_start
        self._steps_before = warm_start.steps if warm_start else 0
        self._config = config
        self._store = store
        self._run = run
        self._strategy = strategy
        replicas = strategy.num_replicas_in_sync
        if train.batch_size % replicas:
            raise InputError(
                f"--batch_size={train.batch_size} cannot be divided among "
                f"{replicas} devices{self._workers.of_so_many}."
            )
        if train.validation:
            check_parts(store)
        part = "train_older" if train.validation else "train"
        self.batches = Batches(
            store,
            part,
            config.data,
            train.batch_size,
            train.seed,
            newest_share=train.newest_share,
            between=(
                (warm_start.first_time, warm_start.end_time)
                if warm_start
                else None
            ),
        )
        if self.batches.num_requests == 0:
            raise InputError(f"{store.path} has no training requests.")
        self.num_steps = train.epochs * self.batches.num_batches
        if train.max_steps:
            self.num_steps = min(self.num_steps, train.max_steps)
        self.num_steps_done = 0
        self.validation: Validation | None = None
        self._unseen_ids: Mapping[str, Any] = {}
        if train.validation:
            self.validation = Validation(
                every=train.validate_every or self.batches.num_batches,
                num_steps=self.num_steps,
                patience=train.patience,
            )
            self._unseen_ids = unseen_before_validation(
                store, self.batches.first_time
            )
        self._scorings: dict[Any, Batches] = {}
        self._predict_steps: list[tuple[Any, PredictStep]] = []
        with strategy.scope():
            self.model = config.model.build(store.schema, config.dtype)
        self.train_step = make_train_step(
            self.model,
            train,
            strategy,
            self.num_steps,
            element_spec(self.batches, train.batch_size // replicas),
            self._steps_before,
        )
        self._optimizer = self.train_step.optimizer
        self._checkpointing = Checkpointing(
            run.checkpoints,
            self.model,
            self._optimizer,
            self.train_step,
            self._optimizer.average,
            keep=train.keep_checkpoints,
            workers=self._workers,
        )
        self._compiled_shapes: frozenset[Shape] = frozenset()
        if train.jit_compile:
            self._compiled_shapes = worth_compiling(
                self.batches, self.num_steps, train.compile_least_rows
            )
        self._known_shapes: set[Shape] = set()
        self.train_seconds = 0.0
        self.compile_seconds = 0.0
        self._start = 0.0

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
        if self._warm_start is not None and not first:
            self._begin(self._warm_start)
        log = self._workers.share(_needed(self._run.drop_log_after(first)))
        last = self._restore_validation(first, log)
        events = tf.summary.create_file_writer(str(self._run.tensorboard))
        self._start = time.monotonic() - (log[-1]["seconds"] if log else 0.0)
        self.compile_seconds = log[-1].get("compile_seconds", 0.0) if log else 0
        with (
            contextlib.closing(events),
            Progress(
                "train", self.num_steps, "step", first=first, delay=0
            ) as bar,
        ):
            self._run_steps(first, last, bar, events)
        self.train_seconds = time.monotonic() - self._start

    def _begin(self, warm_start: WarmStart) -> None:
        """Takes the weights of the run before, and scores the new days.

        Rows that it had not are out of vocabulary for it.
        """
        strategy, optimizer = self._strategy, self._optimizer
        with strategy.scope():
            restore_from(
                RunDirectory.of(warm_start.run), self._checkpointing.learned
            )
        with contextlib.ExitStack() as stack:
            for spec in self.model.recipe.tables(self.model.schema):
                size = warm_start.sizes.get(spec.ids_of or "", spec.num_rows)
                rows = np.arange(size, spec.num_rows)
                if len(rows):
                    variable = self._rows_of(spec.name)
                    stack.enter_context(
                        optimizer.row_copied(
                            variable, OUT_OF_VOCABULARY_ID, rows
                        )
                    )
            days = []
            for day, first, end in warm_start.days(self._store.schema):
                found = self._batches_of("train", (first, end))
                if not found.num_requests:
                    continue
                metrics = self.evaluate("train", (first, end))
                days.append({"day": day, **metrics.to_dict()})
                print(
                    f"{day}, before training on it: AUC {metrics.auc:.6f} "
                    f"(standard error {metrics.auc_standard_error:.4f}), "
                    f"logloss {metrics.logloss:.6f}",
                    flush=True,
                )
        self._run.write_json(BEFORE_TRAINING, {"days": days})

    def _run_steps(
        self, first: int, last: int, bar: Progress, events: Any
    ) -> None:
        """Runs the steps from `first` to `last`; see `train`."""
        train = self._config.train
        before: tuple[int, tf.Tensor] | None = None
        self.num_steps_done = first
        dataset = self._distributed(self.batches, first, last)
        for step, batch in enumerate(dataset, first):
            if step % self.batches.num_batches == 0:
                self.train_step.reset_metrics()
            loss = self._train_on(batch, bar)
            # The loss of the step before is looked at while this one runs:
            # the device never waits for the host.
            if before is not None:
                self._check_loss(*before)
            before = step, loss
            self.num_steps_done = done = step + 1
            if done % train.log_every == 0 or done == self.num_steps:
                self.train_seconds = time.monotonic() - self._start
                self._log(done, bar, events)
            validation = self.validation
            is_due = validation is not None and validation.is_due(done)
            is_last = done == self.num_steps
            if done % train.checkpoint_every == 0 or is_last or is_due:
                self._check_loss(step, loss)
                self._check_weights(step)
                if is_due:
                    self._validate(done, events)
                self._save(done)
            if validation is not None and validation.is_over:
                break

    def _train_on(self, batch: Any, bar: Progress) -> tf.Tensor:
        """Trains on a batch. The first of a shape has a time of its own."""
        sizes = [
            self._strategy.experimental_local_results(batch[name])[0].shape[1]
            for name in ("behavior_time", "label")
        ]
        shape = Shape(*sizes)
        is_compiled = shape in self._compiled_shapes
        if shape in self._known_shapes:
            return self.train_step(batch, is_compiled)
        self._known_shapes.add(shape)
        if is_compiled:
            number = len(self._known_shapes & self._compiled_shapes)
            bar.write(
                f"compiling for batches of {shape}: {number} of "
                f"{len(self._compiled_shapes)} shapes",
                file=sys.stderr,
            )
        began = time.monotonic()
        loss = self.train_step(batch, is_compiled)
        float(loss)  # waits until it is there
        spent = time.monotonic() - began
        self.compile_seconds += spent
        self._start += spent
        return loss

    def evaluate(
        self, split: str = "test", between: tuple[int, int] | None = None
    ) -> Metrics:
        """Returns the exact metrics of a split or part, nothing dropped.

        They are of the average of the weights, if the run has one.

        Args:
            split: Which split or part.
            between: Unix seconds of the first request, and one past those of
                the last; `None` for all.

        Raises:
            InputError: If it has no requests.
        """
        batches = self._batches_of(split, between)
        replicas = self._strategy.num_replicas_in_sync
        spec = element_spec(batches, batches.batch_size // replicas)
        known = [step for other, step in self._predict_steps if other == spec]
        if not known:
            known = [PredictStep(self.model, self._strategy, spec)]
            self._predict_steps.append((spec, known[0]))
        predict = known[0]
        dataset = self._distributed(batches, 0, batches.num_batches)
        with self._optimizer.evaluated_weights():
            return score_requests(predict, batches, dataset).metrics()

    def _batches_of(
        self, split: str, between: tuple[int, int] | None
    ) -> Batches:
        """Returns the batches to evaluate on."""
        key = split, between
        if key not in self._scorings:
            replicas = self._strategy.num_replicas_in_sync
            # What fills up a batch changes no score.
            rows = -(-self._config.train.eval_batch_size // replicas)
            self._scorings[key] = Batches(
                self._store,
                split,
                self._config.data,
                rows * replicas,
                None,
                between=between,
            )
        return self._scorings[key]

    def _rows_of(self, table: str) -> Any:
        """Returns the variable of a table."""
        (variable,) = [
            variable
            for variable in self.model.trainable_variables
            if variable.path.endswith(f"/table_{table}/rows")
        ]
        return variable

    def _restore_validation(self, first: int, log: list[dict[str, Any]]) -> int:
        """Takes up the evaluations before step `first`.

        Returns:
            The last step of the run.
        """
        if self.validation is None:
            return self.num_steps
        self.validation.restore(log, first)
        best = self.validation.best
        is_best = best is not None and best.step == first
        # It may have been stopped before the copy was there.
        if is_best and not self._checkpointing.has_best(first):
            self._checkpointing.save_best(first)
        return first if self.validation.is_over else self.num_steps

    def _validate(self, done: int, events: Any) -> None:
        """Evaluates on the validation; its time is none of the training's."""
        if self.validation is None:
            return
        began = time.monotonic()
        self._forget_unseen_ids()
        metrics = self.evaluate(VALIDATION)
        self.validation.add(done, metrics)
        # Before the checkpoint: what has one has its evaluation in the log.
        self._run.log(
            step=done,
            split=VALIDATION,
            **metrics.to_dict(),
            seconds=round(began - self._start, 3),
        )
        with events.as_default(step=done):
            tf.summary.scalar("validation/auc", metrics.auc)
            tf.summary.scalar("validation/logloss", metrics.logloss)
        events.flush()
        best = self.validation.best
        is_best = best is not None and best.step == done
        print(
            f"validation at step {done}: AUC {metrics.auc:.6f} (standard error "
            f"{metrics.auc_standard_error:.4f}), logloss {metrics.logloss:.6f}"
            f"{', the best so far' if is_best else ''}",
            flush=True,
        )
        self._start += time.monotonic() - began

    def _forget_unseen_ids(self) -> None:
        """Makes ids that only the validation has mean out of vocabulary.

        That is what such values are in the test. No step trains their rows,
        so that training does not notice.
        """
        for spec in self.model.recipe.tables(self.model.schema):
            ids = self._unseen_ids.get(spec.ids_of or "", ())
            if len(ids):
                self._optimizer.copy_row(
                    self._rows_of(spec.name), OUT_OF_VOCABULARY_ID, ids
                )

    def _save(self, done: int) -> None:
        """Saves a checkpoint, and the best one behind it."""
        self._checkpointing.save(done)
        best = self.validation.best if self.validation is not None else None
        if best is not None and best.step == done:
            self._checkpointing.save_best(done)
        self._run.publish()

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
        if self._workers.is_chief:
            arrays: dict[str, Any] = dict(self.batches.batch(step))
            np.savez_compressed(path, **arrays)
        requests = ", ".join(
            f"user {u} at {t}"
            for u, t in zip(user[:3], request_time[:3], strict=True)
        )
        return InputError(
            f"{what} step {step} (the first is 0). Its batch of {len(user)} "
            f"requests ({requests}, ...) is in "
            f"{path if self._workers.is_chief else 'the folder of the run'}."
        )

    def _log(self, done: int, bar: Progress, events: Any) -> None:
        loss = float(self.train_step.loss.result())
        auc = float(self.train_step.auc.result())
        rate, table_rate = self._optimizer.rates_after(
            self._steps_before + done - 1
        )
        bar.advance(done - bar.n, f"loss {loss:.4f}, AUC {auc:.4f}")
        self._run.log(
            step=done,
            loss=loss,
            running_auc=auc,
            learning_rate=rate,
            embedding_learning_rate=table_rate,
            seconds=round(self.train_seconds, 3),
            compile_seconds=round(self.compile_seconds, 3),
        )
        with events.as_default(step=done):
            tf.summary.scalar("train/loss", loss)
            tf.summary.scalar("train/running_auc", auc)
            tf.summary.scalar("train/learning_rate", rate)
            tf.summary.scalar("train/embedding_learning_rate", table_rate)
        events.flush()


def _needed(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of a log that a run goes on from."""
    return [
        line
        for line in log
        if line is log[-1] or line.get("split") == VALIDATION
    ]


def peak_memory_bytes() -> int:
    """Returns the peak memory of this process, or of its first GPU."""
    if tf.config.list_physical_devices("GPU"):
        info = tf.config.experimental.get_memory_info("GPU:0")
        return int(info["peak"])
    return peak_resident_bytes()
