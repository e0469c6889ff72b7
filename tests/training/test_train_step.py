"""One compiled step: what the loss is, and how often it is traced."""

import dataclasses
import math
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.models.mean_pooling import MeanPoolingRecipe
from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.reading.batches import Batches
from data_pipelines.reading.reader import element_spec, read
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.models.mean_pooling import MeanPooling
from sparsectr.models.ranking_model import Auxiliary, Scores
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import PredictStep, TrainStep
from tests.make_requests import SCHEMA, make_requests
from tests.tiny_run import CONFIG, change, make_trainer

CHEAP = MeanPoolingRecipe(width=7, embedding_dim=3, head_units=(5,))
ATTENTIVE = SparseCTRRecipe(
    width=6,
    embedding_dim=3,
    num_blocks=1,
    num_heads=2,
    num_chunks=3,
    num_local=2,
    head_units=(5,),
)
NUM_VALID = [0, 1, 5, 11, 7]


class Descent:
    """Plain gradient descent, whose update shows the gradient itself."""

    def __init__(self, rate):
        self.rate = rate

    def apply_gradients(self, pairs):
        for gradient, variable in pairs:
            gradient = tf.convert_to_tensor(gradient)
            variable.value.assign_sub(self.rate * gradient)


def _batch(seed=0):
    """Requests of which one in five candidates is padding."""
    batch = make_requests(seed, NUM_VALID, length=11, num_candidates=5)
    random = np.random.default_rng(seed)
    batch["label"] = random.integers(0, 2, (5, 5)).astype(np.float32)
    batch["candidate_mask"][:, 4] = False
    return batch


def _step(recipe, batch, jit_compile=False, steps=1, model=None):
    """Returns losses and weights after some steps on one batch."""
    keras.utils.set_random_seed(1)
    model = model or recipe.build(SCHEMA)
    step = TrainStep(model, Descent(0.3), make_strategy(1), jit_compile)
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    losses = [step(tensors) for _ in range(steps)]
    # By place: Keras numbers the layers of a second model on.
    weights = [v.numpy() for v in model.trainable_variables]
    return [loss.numpy() for loss in losses], weights, step


@pytest.fixture(scope="module")
def one_step():
    return _step(CHEAP, _batch())


def test_loss_is_the_mean_over_real_candidates(one_step):
    (loss,), _, step = one_step
    batch = _batch()
    keras.utils.set_random_seed(1)
    logits = CHEAP.build(SCHEMA)(batch).logits.numpy().astype(np.float64)
    entropy = np.log1p(np.exp(logits)) - batch["label"] * logits
    expected = entropy[batch["candidate_mask"]].mean()
    assert loss.dtype == np.float32
    assert loss == pytest.approx(expected, rel=1e-6)
    assert float(step.loss.result()) == pytest.approx(expected, rel=1e-6)


def test_padding_and_filler_rows_change_nothing(one_step):
    batch = _batch()
    # Other values where there is no candidate, more such candidates, and
    # more rows that have none.
    padded = {}
    for name, value in batch.items():
        width = [(0, 3)] + [(0, 0)] * (value.ndim - 1)
        if name.startswith("candidate_") or name == "label":
            mask = batch["candidate_mask"]
            if value.ndim == 3:  # a set
                mask = mask[..., None]
            value = np.where(mask, value, 1)
            width[1] = (0, 2)
        padded[name] = np.pad(value, width).astype(batch[name].dtype)
    padded["candidate_mask"] = np.pad(batch["candidate_mask"], ((0, 3), (0, 2)))
    padded["label"][~padded["candidate_mask"]] = 1.0
    losses, weights, step = _step(CHEAP, padded)
    np.testing.assert_allclose(losses, one_step[0], rtol=1e-6)
    for found, expected in zip(weights, one_step[1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    auc = float(one_step[2].auc.result())
    assert 0.0 < auc < 1.0
    assert float(step.auc.result()) == pytest.approx(auc, abs=1e-6)


class WithMoreLosses(MeanPooling):
    """Twice the logits, as an auxiliary prediction; and a layer's own loss."""

    weight, own, label = 0.5, 0.0, None

    def score(self, state, inputs, training=False, trace=False):
        scores = super().score(state, inputs, training, trace)
        if self.own:
            self.add_loss(self.own * tf.reduce_sum(scores.logits))
        more = Auxiliary(self.weight, 2.0 * scores.logits, self.label)
        return scores._replace(auxiliary={"twice": more})


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("own", "label"), [(0.0, None), (3.0, None), (3.0, 0.25)]
)
def test_no_loss_of_a_model_is_dropped(own, label, jit_compile, one_step):
    batch = _batch()
    keras.utils.set_random_seed(1)
    model = WithMoreLosses(SCHEMA, CHEAP)
    model.build()
    model.own = own
    target = batch["label"]
    if label is not None:
        model.label = target = tf.fill(batch["label"].shape, label)
    logits = model(batch).logits.numpy().astype(np.float64)
    mask = batch["candidate_mask"]

    def entropy(logits, label):
        return (np.log1p(np.exp(logits)) - label * logits)[mask].mean()

    clicks = entropy(logits, batch["label"])
    expected = clicks + 0.5 * entropy(2 * logits, np.asarray(target))
    expected += own * logits.sum()
    (loss,), weights, step = _step(CHEAP, batch, jit_compile, model=model)
    assert loss == pytest.approx(expected, rel=1e-5)
    # What is shown is the loss of clicks.
    assert float(step.loss.result()) == pytest.approx(clicks, rel=1e-5)
    moved = [
        np.abs(found - other).max()
        for found, other in zip(weights, one_step[1], strict=True)
    ]
    assert max(moved) > 1e-3


def test_a_label_changes_something(one_step):
    batch = _batch()
    batch["label"][3, 2] = 1.0 - batch["label"][3, 2]
    losses, _, _ = _step(CHEAP, batch)
    assert abs(losses[0] - one_step[0][0]) > 1e-4


def test_compiled_step_equals_the_plain_one():
    plain, plain_weights, _ = _step(ATTENTIVE, _batch(), steps=3)
    compiled, weights, _ = _step(ATTENTIVE, _batch(), jit_compile=True, steps=3)
    assert plain[2] < plain[0]
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    for found, expected in zip(weights, plain_weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def cheap_config():
    """Two padded lengths and two candidate counts, two epochs."""
    config = dataclasses.replace(CONFIG, model=CHEAP)
    config = change(config, "train", epochs=2)
    data = DataConfig(
        max_history=64, length_buckets=(32,), candidate_buckets=(14, 15, 16)
    )
    return change(
        config,
        "data",
        max_history=data.max_history,
        length_buckets=data.length_buckets,
        candidate_buckets=data.candidate_buckets,
    )


def test_prediction_traces_once(cheap_config, tiny_store):
    batches = Batches(tiny_store, "train", cheap_config.data, 16, 0)
    calls = []

    def model(batch, training):
        assert training is False
        calls.append(batch["label"].shape)
        total = tf.reduce_sum(batch["label"], axis=1, keepdims=True)
        return Scores(total, {}, {})

    predict = PredictStep(model, make_strategy(1), element_spec(batches, 16))
    shapes = set()
    for batch in read(batches, 0, batches.num_batches):
        logits = predict(batch)
        shapes.add(tuple(batch["behavior_time"].shape))
        np.testing.assert_array_equal(
            logits[:, 0], batch["label"].numpy().sum(axis=1)
        )
    assert len(shapes) > 1
    assert len(calls) == 1


def test_mixed_precision(tiny_store, tmp_path):
    config = change(
        CONFIG, "train", mixed_precision=True, max_steps=3, eval_batch_size=16
    )
    config = change(config, "model", num_blocks=1)
    trainer = make_trainer(config, tiny_store, tmp_path / "run")
    assert trainer.model.compute_dtype == "bfloat16"
    tables = {
        name: table.rows.numpy().copy()
        for name, table in trainer.model.embedding.tables.items()
    }
    losses = []
    step = trainer.train_step

    def record(batch, jit_compile):
        losses.append(step(batch, jit_compile))
        return losses[-1]

    trainer.train_step = record
    trainer.train_step.loss, trainer.train_step.auc = step.loss, step.auc
    trainer.train_step.reset_metrics = step.reset_metrics
    trainer.train()
    assert len(losses) == 3
    for loss in losses:
        assert loss.dtype == tf.float32
        assert math.isfinite(float(loss))
    for variable in trainer.model.trainable_variables:
        assert variable.dtype == "float32", variable.path
    for name, before in tables.items():
        rows = trainer.model.embedding.tables[name].rows
        assert rows.value.dtype == tf.float32
        assert not np.array_equal(rows.numpy(), before)
    metrics = trainer.evaluate()
    assert math.isfinite(metrics.logloss)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_loss_that_is_not_finite_stops_the_run(
    log_every, cheap_config, tiny_store, tmp_path
):
    config = change(
        cheap_config, "train", log_every=log_every, checkpoint_every=1000
    )
    trainer = make_trainer(config, tiny_store, tmp_path / "run")
    poisoned = trainer.model.embedding.tables["pid"].rows
    poisoned.assign(np.full(poisoned.shape, np.nan))
    path = tmp_path / "run" / "bad_batch_step_0.npz"
    user, time = trainer.batches.users(0)
    with pytest.raises(InputError) as error:
        trainer.train()
    assert "The loss is nan at step 0" in str(error.value)
    assert f"user {user[0]} at {time[0]}" in str(error.value)
    assert f"is in {path}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("checkpoints/*.index"))
    expected = trainer.batches.batch(0)
    with np.load(path) as arrays:
        assert set(arrays.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(arrays[name], value)


def test_no_training_requests(cheap_config, tiny_store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(tiny_store.path, folder)
    (shard,) = folder.glob("shard-*")
    shutil.rmtree(shard / "train")
    shutil.copytree(shard / "test", shard / "train")
    for column in (shard / "train").iterdir():
        values = np.load(column)
        keep = 1 if column.stem == "candidate_offset" else 0
        np.save(column, values[:keep])
    with pytest.raises(InputError, match="has no training requests"):
        make_trainer(cheap_config, type(tiny_store)(folder), tmp_path / "run")
