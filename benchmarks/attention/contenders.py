"""What `benchmarks.speed_memory` compares, as calls that can be timed.

Axes: B batch, L history length, C candidates, d width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks.attention.all_pairs import AllPairsRecipe
from benchmarks.attention.paper_construction import (
    PaperConstructionRecipe,
    plan_all_rows,
)
from benchmarks.made_data.requests import made_requests, made_schema
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.config import TrainConfig
from sparsectr.model_recipe import RequestShape
from sparsectr.ops.places import places_of_history, places_of_request
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep

FULL, ALL_PAIRS, PAPER = BASELINES = ("full", "all_pairs", "paper")
SPARSITIES = tuple(n for n in SparseCTRRecipe.presets if "sparsity" in n)
"""The paper's own presets."""

CONTENDERS = (*BASELINES, *SPARSITIES)
SCOPES = ("model", "block", "attention")
MODES = ("inference", "training")
EXECUTIONS = ("graph", "xla")

_NUM_BATCHES = 3

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of what is run.

    Args:
        batch_size: B.
        num_behaviors: L; every history is that long.
        num_candidates: C.
        num_rows: Rows of every embedding table.
        precision: Keras dtype policy.
    """

    batch_size: int
    num_behaviors: int
    num_candidates: int
    num_rows: int
    precision: str

    @property
    def of_requests(self) -> RequestShape:
        """B, L and C."""
        return RequestShape(
            self.batch_size, self.num_behaviors, self.num_candidates
        )


def recipe_of(contender: str) -> SparseCTRRecipe:
    """Returns the model that a name of `CONTENDERS` stands for."""
    recipes = {
        FULL: SparseCTRRecipe,
        ALL_PAIRS: AllPairsRecipe,
        PAPER: PaperConstructionRecipe,
    }
    if contender in recipes:
        return recipes[contender](attention="full")
    return SparseCTRRecipe().with_preset(contender)


def model_of(contender: str, shape: Shape) -> Any:
    """Returns a contender's model, with all its weights.

    All forms of full attention have the same.
    """
    schema = made_schema(shape.num_rows)
    keras.utils.set_random_seed(0)
    return recipe_of(contender).build(schema, shape.precision)


def batches_of(shape: Shape) -> list[Batch]:
    """Returns the batches that a contender is given in turn."""
    schema = made_schema(shape.num_rows)
    return [
        {
            name: tf.constant(value)
            for name, value in made_requests(
                schema,
                shape.batch_size,
                shape.num_behaviors,
                shape.num_candidates,
                seed,
            ).items()
        }
        for seed in range(_NUM_BATCHES)
    ]


def make_call(
    model: Any,
    contender: str,
    scope: str,
    mode: str,
    execution: str,
    batches: list[Batch],
) -> Callable[[], object]:
    """Returns a call that runs a contender on the next batch, to the end.

    Inference is a pass to the logits. Training, of the whole model, is the
    step of the trainer: forward and backward pass, update of the rows that
    were read, running metrics. Of a block or of attention alone, both passes
    and nothing else.
    """
    jit_compile = execution == "xla"
    if scope == "model" and mode == "training":
        optimizer = LazyAdam(TrainConfig().learning_rate)
        optimizer.build(model.trainable_variables)
        strategy = make_strategy(num_devices=1)
        step: Any = TrainStep(model, optimizer, strategy, jit_compile)
        given = batches
    else:
        forward = model
        given = batches
        if scope != "model":
            forward = _part_of(model, contender, scope)
            given = [_with_rows(model, batch) for batch in batches]
        function = (
            (lambda batch: forward(batch))
            if mode == "inference"
            else _with_gradients(model, forward)
        )
        step = tf.function(function, jit_compile=jit_compile, autograph=False)
    turn = iter(range(2**62))

    def call() -> object:
        found = step(given[next(turn) % len(given)])
        # Copied to the host, which waits for the device.
        return [part.numpy() for part in tf.nest.flatten(found)[:1]]

    return call


def _with_rows(model: Any, batch: Batch) -> Batch:
    """Adds embedded rows, which stand at the beginning of a block."""
    behaviors = model.embedding.behaviors(batch)
    return {
        "behavior_time": batch["behavior_time"],
        "request_time": batch["request_time"],
        "behaviors": behaviors,  # [B, L, d]
        "candidates": model.embedding.candidates(batch),  # [B, C, d]
        "user": behaviors[:, 0],  # any row of width d will do
    }


def _part_of(model: Any, contender: str, scope: str) -> Any:
    """Returns the first block, or its attention, as a function of a batch.

    What depends on times alone is part of it: it is computed once for all
    blocks of a model, and here for one.
    """
    block = model.blocks[0]
    layer = block.attention

    def history(rows: Any, user: Any, plan: Any) -> Any:
        if scope == "block":
            return block.encode(rows, user, plan, is_last=False)
        rows = keras.ops.cast(rows, block.compute_dtype)
        encoded = layer.encode(rows, user, plan)
        return layer.read_history(rows, encoded, plan), encoded

    def all_rows(batch: Batch) -> Any:
        candidates = batch["candidates"]
        plan = plan_all_rows(
            batch["behavior_time"],
            batch["request_time"],
            candidates.shape[1],
            layer,
        )
        rows = tf.concat([batch["behaviors"], candidates], axis=1)
        return history(rows, batch["user"], plan)[0]

    def apart(batch: Batch) -> Any:
        places = places_of_history(batch["behavior_time"])
        plan = layer.plan(places, batch["behaviors"], for_history=True)
        rows, encoded = history(batch["behaviors"], batch["user"], plan)
        request = places_of_request(batch["request_time"])
        features = layer.relate(request, plan.keys, plan.key_mask.shape[1])
        read = block if scope == "block" else layer
        candidates = keras.ops.cast(batch["candidates"], block.compute_dtype)
        return rows, read(
            candidates, *encoded, features, plan.key_mask, request
        )

    return all_rows if contender == PAPER else apart


def _with_gradients(model: Any, forward: Any) -> Any:
    """Returns gradients of a block's weights and rows."""
    weights = [variable.value for variable in model.blocks[0].weights]

    def passes(batch: Batch) -> Any:
        given = [batch["behaviors"], batch["candidates"]]
        with tf.GradientTape() as tape:
            tape.watch(given)
            found = tf.nest.flatten(forward(batch))
            # Any loss that every output enters with a gradient of its own.
            loss = tf.add_n(
                [
                    tf.reduce_sum(tf.square(tf.cast(part, tf.float32)))
                    for part in found
                ]
            )
        return loss, tape.gradient(loss, [*given, *weights])

    return passes
