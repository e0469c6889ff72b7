"""Requests whose labels only a model that retrieves can predict.

Each candidate was met once, long ago, and was liked or not: the click says
which. The newest behaviors, which a short interest sees, tell nothing of it.
"""

import numpy as np
import tensorflow as tf

from sparsectr.model_recipe import ModelRecipe
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep
from tests.make_requests import DAY

NUM_OLD, NUM_RECENT, NUM_CANDIDATES = 11, 3, 2
NUM_ITEMS = 17

_OF_ITEM = CategoricalField(name="item", table="item")
_SHOP = CategoricalField(name="shop", table="shop")

SCHEMA = DatasetSchema(
    name="planted",
    tables=(
        Table(name="item", size=NUM_ITEMS),
        Table(name="shop", size=NUM_ITEMS - 1),
        Table(name="liked", size=4),
    ),
    user_fields=(),
    behavior_fields=(
        _OF_ITEM,
        _SHOP,
        CategoricalField(name="liked", table="liked"),
    ),
    candidate_fields=(_OF_ITEM, _SHOP),
)
"""An item has a shop of its own, which is what a search by category has."""

SIZES = {
    "width": 16,
    "embedding_dim": 6,
    "num_heads": 2,
    "num_recent": NUM_RECENT,
    "num_retrieved": 5,
    "head_units": (11,),
}


def make_batch(seed: int, batch_size: int) -> dict[str, np.ndarray]:
    """Returns requests with labels."""
    random = np.random.default_rng(seed)
    length = NUM_OLD + NUM_RECENT
    items = np.stack(
        [
            3 + random.permutation(NUM_ITEMS - 3)[:length]
            for _ in range(batch_size)
        ]
    ).astype("int32")
    liked = random.integers(2, 4, size=items.shape, dtype=np.int32)
    place = np.stack(
        [
            random.permutation(NUM_OLD)[:NUM_CANDIDATES]
            for _ in range(batch_size)
        ]
    )
    met = np.take_along_axis(items, place, axis=1)
    request_time = random.integers(1_450_000_000, 1_550_000_000, batch_size)
    days_ago = np.arange(length, 0, -1)
    return {
        "behavior_time": request_time[:, None] - days_ago * DAY,
        "request_time": request_time,
        "behavior_item": items,
        "behavior_shop": items - 1,
        "behavior_liked": liked,
        "candidate_item": met,
        "candidate_shop": met - 1,
        "candidate_mask": np.ones(met.shape, bool),
        "label": (np.take_along_axis(liked, place, axis=1) == 3).astype(
            "float32"
        ),
    }


def loss_of_new_requests(recipe: ModelRecipe, num_steps: int = 100) -> float:
    """Trains a model and returns its log loss; the base rate's is 0.69."""
    tf.keras.utils.set_random_seed(1)
    model = recipe.build(SCHEMA)
    # As small as they are, items would first have to become different.
    for spec in recipe.tables(SCHEMA):
        for weight in model.trainable_variables:
            if weight.path.endswith(f"/table_{spec.name}/rows"):
                weight.assign(20.0 * weight)
    optimizer = LazyAdam(0.02)
    optimizer.build(model.trainable_variables)
    step = TrainStep(model, optimizer, make_strategy(1), jit_compile=False)
    for seed in range(num_steps):
        batch = make_batch(seed, 128)
        step({name: tf.constant(values) for name, values in batch.items()})
    test = make_batch(num_steps, 512)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        test["label"], model(test).logits
    )
    return float(tf.reduce_mean(losses))
