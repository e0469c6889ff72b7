"""Requests with a signal that a model can only find by reading histories."""

import keras
import numpy as np
import tensorflow as tf

from sparsectr.model_recipe import ModelRecipe
from tests.make_requests import SCHEMA, make_requests

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
        batch = make_requests(
            seed, num_valid, length=_LENGTH, num_candidates=_CANDIDATES
        )
        item = random.integers(_ITEMS, size=(_BATCH, 1))
        batch["behavior_item"] = np.where(
            batch["behavior_time"] > 0, 2 + item, 0
        ).astype("int32")
        candidate = random.integers(_ITEMS, size=(_BATCH, _CANDIDATES))
        batch["candidate_item"] = (2 + candidate).astype("int32")
        batch["label"] = (candidate == item).astype("float32")
        batches.append(batch)
    return batches


def loss_after_training(
    recipe: ModelRecipe, num_steps: int = 80, learning_rate: float = 0.02
) -> float:
    """Returns the mean loss of the last ten steps, each on requests unseen."""
    keras.utils.set_random_seed(1)
    model = recipe.build(SCHEMA)
    optimizer = keras.optimizers.Adam(learning_rate)
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
        for batch in _batches(num_steps)
    ]
    return float(np.mean(losses[-10:]))
