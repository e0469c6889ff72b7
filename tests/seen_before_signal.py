"""A signal that a model of the history can learn in seconds."""

import keras
import numpy as np
import tensorflow as tf

from sparsectr.model_recipe import ModelRecipe
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep

NUM_IDS, LENGTH, NUM_CANDIDATES, BATCH = 13, 7, 5, 64

FIELD = CategoricalField(name="item", table="item")
SCHEMA = DatasetSchema(
    name="planted",
    tables=(Table(name="item", size=NUM_IDS),),
    user_fields=(),
    behavior_fields=(FIELD,),
    candidate_fields=(FIELD,),
)


def _batch(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Requests whose candidates are clicked if they are in the history."""
    behaviors = random.integers(2, NUM_IDS, (BATCH, LENGTH), dtype=np.int32)
    candidates = random.integers(
        2, NUM_IDS, (BATCH, NUM_CANDIDATES), dtype=np.int32
    )
    first = random.integers(0, LENGTH, (BATCH, 1))
    is_valid = np.arange(LENGTH) >= first
    behaviors = np.where(is_valid, behaviors, 0)
    time = 1_500_000_000 + 3600 * np.arange(LENGTH, dtype=np.int64)
    is_among = candidates[:, :, None] == behaviors[:, None, :]
    return {
        "behavior_item": behaviors,
        "behavior_time": np.where(is_valid, time, 0),
        "request_time": np.full(BATCH, time[-1] + 3600),
        "candidate_item": candidates,
        "candidate_mask": np.ones((BATCH, NUM_CANDIDATES), bool),
        "label": np.any(is_among, axis=-1).astype(np.float32),
    }


def unexplained_share(
    recipe: ModelRecipe, num_steps: int = 150, learning_rate: float = 0.02
) -> float:
    """Returns the loss after some steps, in that of the best constant."""
    keras.utils.set_random_seed(3)
    model = recipe.build(SCHEMA)
    optimizer = LazyAdam(learning_rate)
    optimizer.build(model.trainable_variables)
    step = TrainStep(model, optimizer, make_strategy(1), jit_compile=False)
    random = np.random.default_rng(5)
    losses, labels = [], []
    for _ in range(num_steps):
        batch = _batch(random)
        labels.append(batch["label"].mean())
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        losses.append(float(step(tensors)))
    rate = np.mean(labels)
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    return float(np.mean(losses[-20:]) / entropy)
