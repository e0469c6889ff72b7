"""Requests with a signal that a model can only find by reading histories."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.make_requests import (
    SCHEMA,
    SMALL_CONFIG,
    make_requests,
    sized_recipe,
)

# A number is some thirty times as large as a fresh embedding: as noise beside
# the signal it would make this a test of patience.
_SCHEMA = dataclasses.replace(
    SCHEMA,
    user_dense_fields=(),
    behavior_dense_fields=(),
    candidate_dense_fields=(),
)
_SIZES = dataclasses.replace(
    SMALL_CONFIG, width=20, embedding_dim=11, head_units=(17,)
)
_ITEMS = 3
_BATCH, _LENGTH, _CANDIDATES = 32, 7, 5
BASE_RATE_LOSS = float(np.log(_ITEMS) - (1 - 1 / _ITEMS) * np.log(2))
"""Mean loss of a model that knows how often there is a click, and no more."""


def _batches(num_batches: int) -> list[dict[str, np.ndarray]]:
    """Returns requests whose user has seen one item alone.

    That item is clicked, and no other.
    """
    random = np.random.default_rng(3)
    batches = []
    for seed in range(num_batches):
        num_valid = random.integers(1, _LENGTH + 1, size=_BATCH).tolist()
        batch = make_requests(seed, num_valid, _SCHEMA, _LENGTH, _CANDIDATES)
        item = random.integers(_ITEMS, size=(_BATCH, 1))
        batch["behavior_item"] = np.where(
            batch["behavior_time"] > 0, 2 + item, 0
        ).astype("int32")
        candidate = random.integers(_ITEMS, size=(_BATCH, _CANDIDATES))
        batch["candidate_item"] = (2 + candidate).astype("int32")
        batch["label"] = (candidate == item).astype("float32")
        batches.append(batch)
    return batches


def loss_after_training(name: str, **values: Any) -> float:
    """Returns the mean loss of the last ten steps, each on requests unseen.

    Args:
        name: Name of the model.
        **values: Values of its recipe.
    """
    keras.utils.set_random_seed(1)
    recipe = sized_recipe(name, _SIZES, **values)
    model = recipe.build(_SCHEMA)
    optimizer = keras.optimizers.Adam(0.005)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    batch["label"], model(batch, training=True).logits
                )
            )
        # Dense ones: Keras' Adam does not merge repeated ids.
        gradients = [
            tf.convert_to_tensor(gradient)
            for gradient in tape.gradient(loss, [v.value for v in variables])
        ]
        optimizer.apply(gradients, variables)
        return loss

    losses = [
        float(step({k: tf.constant(v) for k, v in batch.items()}))
        for batch in _batches(100)
    ]
    return float(np.mean(losses[-10:]))
