"""One compiled training step, on one device or on several."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from sparsectr.config import TrainConfig
from sparsectr.errors import InputError
from sparsectr.layers.dropout import part_of_batch
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.optimizers.rate_schedule import RateSchedule

Batch = Mapping[str, Any]

_AUC_THRESHOLDS = 1000


class TrainStep:
    """Forward pass, backward pass and update of one batch.

    The loss is the binary cross-entropy, mean over the real candidates of
    the whole batch (Eq. 18), each by its weight if the data have weights,
    however its parts are spread over devices: the weights of all replicas are
    added up first, and each divides the sum over its own by that. The model's
    auxiliary predictions add theirs, each with its weight, and its layers what
    they gave to `add_loss`. Running statistics, whose names begin with
    `moving_`, are the mean over the replicas after each step.

    Args:
        model: A `RankingModel`.
        optimizer: What updates it.
        strategy: Where it runs. `model` and `optimizer` belong to its scope.
        jit_compile: Whether forward and backward pass are compiled with XLA
            where a call does not say. The update never is: it writes rows of
            tables.
        spec: `tf.TensorSpec` by name of a replica's batch, whose sizes may be
            `None`. A step that is not compiled is then traced once for all
            batches, where it would be once for each shape.

    Attributes:
        optimizer: As given.
        num_traces: How often the step was traced.
        auc: Running, binned AUC since `reset_metrics`.
        loss: Running mean loss likewise.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        strategy: tf.distribute.Strategy,
        jit_compile: bool,
        spec: Mapping[str, tf.TensorSpec] | None = None,
    ) -> None:
        self.num_traces = 0
        self._spec = spec
        self._model = model
        self.optimizer = optimizer
        self._strategy = strategy
        with strategy.scope():
            self.auc = keras.metrics.AUC(
                num_thresholds=_AUC_THRESHOLDS, name="auc"
            )
            self.loss = keras.metrics.Mean(name="loss")
            # Creates the variables of the metrics now, in the scope.
            self.auc.reset_state()
            self.loss.reset_state()
        self._variables = model.trainable_variables
        # As Keras names them, and Dice.
        self._statistics = [
            variable
            for variable in model.non_trainable_variables
            if variable.name.startswith("moving_")
        ]
        self._jit_compile = jit_compile
        self._steps: dict[bool, Any] = {}

    def __call__(
        self, batch: Batch, jit_compile: bool | None = None
    ) -> tf.Tensor:
        """Trains on one batch.

        Args:
            batch: The dict of tensors of the requests, with labels: an
                element of the dataset, per replica.
            jit_compile: Whether this one is to be compiled; what the
                constructor was told, if not given.

        Returns:
            float32 scalar, all losses together, before the update.
        """
        if jit_compile is None:
            jit_compile = self._jit_compile
        if jit_compile not in self._steps:
            self._steps[jit_compile] = self._make_step(jit_compile)
        return self._steps[jit_compile](batch)

    def _make_step(self, jit_compile: bool) -> Any:
        # XLA is told the sizes: attention cuts its queries by them.
        spec = None if jit_compile else self._spec
        forward_backward = tf.function(
            self._loss_and_gradients,
            jit_compile=jit_compile,
            autograph=False,
            input_signature=spec
            and [dict(spec), tf.TensorSpec(()), tf.TensorSpec((), tf.int32)],
        )

        def step(batch: Batch) -> tf.Tensor:
            self.num_traces += 1
            losses = self._strategy.run(
                self._replica_step, args=(batch, forward_backward)
            )
            return self._strategy.reduce(
                tf.distribute.ReduceOp.SUM, losses, axis=None
            )

        return tf.function(
            step, autograph=False, reduce_retracing=spec is not None
        )

    def reset_metrics(self) -> None:
        """Starts the running metrics anew."""
        self.auc.reset_state()
        self.loss.reset_state()

    def _replica_step(self, batch: Batch, forward_backward: Any) -> tf.Tensor:
        weights = _weights(batch)
        count = tf.reduce_sum(weights)
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
        # No candidate at all divides by nothing.
        total = tf.where(total > 0.0, total, 1.0)
        part = tf.cast(context.replica_id_in_sync_group, tf.int32)
        trained, loss, logits, gradients = forward_backward(batch, total, part)
        if self._strategy.num_replicas_in_sync > 1:
            self._share_statistics(context)
        self.optimizer.apply_gradients(
            zip(gradients, self._variables, strict=True)
        )
        self.auc.update_state(
            batch["label"], tf.sigmoid(logits), sample_weight=weights
        )
        own_mean = loss * total / tf.where(count > 0.0, count, 1.0)
        self.loss.update_state(own_mean, count)
        return trained

    def _share_statistics(self, context: Any) -> None:
        """Gives all replicas the mean of what their layers keep of batches.

        Replicas cannot speak with each other inside a function of its own,
        which the forward pass is.
        """
        for variable in self._statistics:
            mean = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, variable.value
            )
            variable.value.assign(mean)

    def _loss_and_gradients(
        self, batch: Batch, total: tf.Tensor, part: tf.Tensor
    ) -> Any:
        """Returns this part of what is trained, with the mean loss of clicks.

        Behind them come logits and gradients.
        """
        weights = _weights(batch)

        def mean_loss(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(label, logits)
            return tf.reduce_sum(losses * weights) / total

        num_parts = self._strategy.num_replicas_in_sync
        is_divided = num_parts > 1
        with (
            tf.GradientTape() as tape,
            part_of_batch(part, num_parts)
            if is_divided
            else contextlib.nullcontext(),
        ):
            scores = self._model(batch, training=True)
            loss = mean_loss(scores.logits, batch["label"])
            trained = loss
            for extra in scores.auxiliary.values():
                label = batch["label"] if extra.label is None else extra.label
                trained += extra.weight * mean_loss(extra.logits, label)
            if self._model.losses:
                # The replicas' gradients are added up, and so would these be.
                own = tf.add_n(self._model.losses)
                trained += own / num_parts
        gradients = tape.gradient(
            trained, [variable.value for variable in self._variables]
        )
        return trained, loss, scores.logits, gradients


def _weights(batch: Batch) -> tf.Tensor:
    """Returns what a candidate counts for, float32 `[B, C]`; padding is 0."""
    weights = tf.cast(batch["candidate_mask"], tf.float32)
    if "candidate_weight" in batch:
        weights *= batch["candidate_weight"]
    return weights


def make_train_step(
    model: Any,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    num_steps: int | None = None,
    spec: Mapping[str, tf.TensorSpec] | None = None,
    first_step: int = 0,
) -> TrainStep:
    """Returns the step that a configuration asks for, with its optimizer.

    Args:
        model: A `RankingModel`.
        config: What the optimizer does, and whether XLA compiles the step.
        strategy: Where it runs. `model` belongs to its scope.
        num_steps: Steps of the run, which a cosine schedule is laid over.
        spec: Of a replica's batch; see `TrainStep`.
        first_step: Steps that the optimizer will have behind it when the run
            begins.

    Raises:
        InputError: If the run is not longer than its warm-up.
    """
    if num_steps is not None and config.warmup_steps >= num_steps:
        raise InputError(
            f"--warmup_steps={config.warmup_steps} must be below the "
            f"{num_steps} steps of the run."
        )
    with strategy.scope():
        optimizer = LazyAdam(
            _scheduled(config.learning_rate, config, num_steps, first_step),
            table_learning_rate=_scheduled(
                config.embedding_learning_rate, config, num_steps, first_step
            )
            if config.embedding_learning_rate
            else None,
            weight_decay=config.weight_decay,
            table_weight_decay=config.embedding_weight_decay,
            clip_norm=config.clip_norm,
            ema_decay=config.ema_decay,
        )
        optimizer.build(model.trainable_variables)
    return TrainStep(model, optimizer, strategy, config.jit_compile, spec)


def _scheduled(
    rate: float, config: TrainConfig, num_steps: int | None, first_step: int
) -> float | RateSchedule:
    """Returns a rate, or its schedule where it is not constant."""
    if config.learning_rate_schedule == "cosine":
        if num_steps is None:
            raise ValueError("A cosine schedule needs `num_steps`.")
        return RateSchedule(rate, config.warmup_steps, num_steps, first_step)
    if config.warmup_steps:
        return RateSchedule(rate, config.warmup_steps, first_step=first_step)
    return rate


class PredictStep:
    """Logits of one batch, without an update; all workers get all of them.

    Traced once for all lengths and numbers of candidates, and not compiled
    with XLA, which would compile anew for each of them: an evaluation is
    short.

    Args:
        model: A `RankingModel`.
        strategy: Where it runs.
        spec: `tf.TensorSpec` of a replica's batch by name.
    """

    def __init__(
        self,
        model: Any,
        strategy: tf.distribute.Strategy,
        spec: Mapping[str, tf.TensorSpec],
    ) -> None:
        self._strategy = strategy
        self._forward = tf.function(
            lambda batch: model(batch, training=False).logits,
            input_signature=[dict(spec)],
            autograph=False,
        )

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Returns the logits of all replicas' parts, in order, `[B, C]`."""
        # `run` cannot wrap a tf.function that has a signature.
        parts = self._strategy.run(
            lambda part: self._forward(part), args=(batch,)
        )
        return self._strategy.gather(parts, axis=0)
