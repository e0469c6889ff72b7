"""The layers that are one equation each, against the reference."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.dice import Dice
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.prediction.prediction_layer import PredictionLayer
from sparsectr.layers.swiglu import SwiGLU
from sparsectr.ops.places import Places
from sparsectr.ops.temporal_features import temporal_features
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.time_zone import UTC, TimeZone
from tests import reference
from tests.keras_weights import randomize

NOW = 1_494_590_400


def _normal(*shape: int) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return random.normal(size=shape).astype("float32")


def test_rel_temporal_equals_the_equations() -> None:
    heads, keys = 5, 61
    layer = RelTemporal(heads)
    layer.build()
    randomize(layer, 0)
    random = np.random.default_rng(0)
    key_time = NOW - random.integers(0, 10**6, size=(1, 1, keys))
    query_time = np.array([[[NOW], [NOW - 70_000]]])
    nothing = np.zeros(0)
    keys_places = Places(
        key_time, nothing, nothing, np.zeros(key_time.shape, bool)
    )
    bias = layer(
        *temporal_features(query_time, keys_places, TimeZone.fixed(8 * 60))
    ).numpy()
    slopes = [
        weight.numpy()
        for weight in (
            layer.slopes_time,
            layer.slopes_hour,
            layer.slopes_weekend,
        )
    ]
    for q in range(2):
        for k in range(keys):
            expected = reference.temporal_bias(
                query_time[0, q, 0],
                key_time[0, 0, k],
                *slopes,
                reference.zone_of("UTC+8"),
            )
            np.testing.assert_allclose(
                bias[0, q, :, k], expected, rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_rel_temporal_starts_with_falling_slopes(heads: int) -> None:
    layer = RelTemporal(heads)
    layer.build()
    assert len(layer.weights) == 3
    for weight in layer.weights:
        np.testing.assert_allclose(
            weight.numpy(), reference.initial_slopes(heads), rtol=1e-6
        )


def test_swiglu_equals_eq_2() -> None:
    layer = SwiGLU(13)
    inputs = _normal(2, 3, 5)
    outputs = layer(inputs)
    weights = {
        f"swiglu_{name}": getattr(layer, name).kernel.numpy().astype("float64")
        for name in ("gate", "up", "down")
    }
    expected = reference.swiglu(weights, inputs.astype("float64"))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_branch_gate_equals_eqs_9_and_10() -> None:
    batch, queries, heads, head_width = 2, 5, 3, 7
    layer = BranchGate(heads)
    branches = [_normal(batch, queries, heads * head_width) for _ in range(3)]
    branches = [branch + n for n, branch in enumerate(branches)]
    outputs = layer(branches).numpy()
    kernel = layer.kernel.numpy().astype("float64")
    assert kernel.shape == (heads, 3 * head_width, 3)
    for b in range(batch):
        expected = reference.gate(
            [branch[b].astype("float64") for branch in branches], kernel, heads
        )
        np.testing.assert_allclose(outputs[b], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("has_user", [True, False])
def test_prediction_layer_equals_eq_17(has_user: bool) -> None:
    batch, candidates, width, user_width = 2, 5, 7, 11
    layer = PredictionLayer(width, (13,))
    rows = _normal(batch, candidates, width)
    users = _normal(batch, user_width) if has_user else None
    layer(rows, users)
    randomize(layer, 0)
    logits = layer(rows, users).numpy()
    weights: dict[str, Any] = {
        "candidate": layer.candidate_projection.kernel,
        "kernel_1": layer.mlp.hidden[0].kernel,
        "bias_1": layer.mlp.hidden[0].bias,
        "kernel_2": layer.mlp.output_unit.kernel,
        "bias_2": layer.mlp.output_unit.bias,
    }
    if has_user:
        weights["user"] = layer.user_projection.kernel
    weights = {k: w.numpy().astype("float64") for k, w in weights.items()}
    for b in range(batch):
        expected = reference.prediction_layer(
            weights,
            rows[b].astype("float64"),
            users[b].astype("float64") if users is not None else np.zeros(0),
        )
        np.testing.assert_allclose(logits[b], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_what_candidates_share_is_as_if_each_had_it(activation: str) -> None:
    rows, shared = _normal(2, 5, 7), _normal(2, 11)
    layer = MLPHead((13, 3), activation)
    layer.build((None, None, 7), (None, 11))
    randomize(layer, 0)
    own = np.concatenate([rows, np.repeat(shared[:, None], 5, axis=1)], axis=-1)
    x = own.astype("float64")
    for dense in layer.hidden:
        x = x @ dense.kernel.numpy() + dense.bias.numpy()
        slope = 0.0 if activation == "relu" else 0.2
        x = np.where(x > 0, x, slope * x)
    last = layer.output_unit
    expected = (x @ last.kernel.numpy() + last.bias.numpy())[..., 0]
    np.testing.assert_allclose(layer(rows, shared), expected, rtol=1e-5)


def _dice(x: np.ndarray, mean: Any, variance: Any, alpha: Any) -> np.ndarray:
    share = 1.0 / (1.0 + np.exp((mean - x) / np.sqrt(variance + 1e-8)))
    return x * (share + (1.0 - share) * alpha)


def test_dice() -> None:
    layer = Dice(momentum=0.75)
    rows = 3.0 + 5.0 * _normal(2, 5, 7)
    mask = np.array([[True] * 5, [True, False, True, False, False]])
    layer.build(rows.shape)
    alpha = _normal(7)
    layer.alpha.assign(alpha)
    before = layer(rows).numpy()
    np.testing.assert_allclose(before, _dice(rows, 0, 1, alpha), rtol=1e-5)
    valid = rows[mask].astype("float64")
    mean, variance = valid.mean(axis=0), valid.var(axis=0)
    found = layer(rows, mask, training=True)
    expected = _dice(rows, mean, variance, alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance, 0.75 + 0.25 * variance, rtol=1e-5
    )
    moved = layer.moving_mean.numpy()
    layer(rows, np.zeros_like(mask), training=True)
    np.testing.assert_array_equal(layer.moving_mean, moved)
    after = layer(rows)
    expected = _dice(rows, moved, layer.moving_variance.numpy(), alpha)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)


def test_embedding_table_reads_rows_by_id() -> None:
    layer = EmbeddingTable(5, 3)
    ids = np.array([[0, 4], [1, 2]], "int32")
    rows = layer(ids).numpy()
    np.testing.assert_array_equal(rows, layer.rows.numpy()[ids])


def test_embedding_table_reads_foreign_ids_as_out_of_vocabulary() -> None:
    layer = EmbeddingTable(5, 3)
    ids = np.array([-1, -(2**31), 5, 6, 2**31 - 1], "int32")
    rows = layer(ids).numpy()
    expected = np.repeat(layer.rows.numpy()[1:2], len(ids), axis=0)
    np.testing.assert_array_equal(rows, expected)


def test_embedding_table_has_a_sparse_gradient() -> None:
    layer = EmbeddingTable(1_000, 3)
    layer.build()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.array([7, 7, 2], "int32")))
    gradient = tape.gradient(loss, layer.rows.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.indices.numpy().tolist() == [7, 7, 2]


def _dense_schema(**arguments: Any) -> DatasetSchema:
    fields = (CategoricalField(name="item", table="item"),)
    return DatasetSchema(
        name="toy",
        tables=(Table(name="item", size=5),),
        user_fields=(),
        behavior_fields=fields,
        candidate_fields=fields,
        candidate_dense_fields=(DenseField(name="price", **arguments),),
    )


@pytest.mark.parametrize(
    ("transform", "value", "expected"),
    [
        ("identity", 1995.0, (1995.0 - 1990.0) / 4.0),
        ("identity", -3.0, (-3.0 - 1990.0) / 4.0),
        ("log1p", 9.5, (math.log(10.5) - 1990.0) / 4.0),
        ("log1p", -2.0, -1990.0 / 4.0),
        ("identity", math.nan, 0.0),
        ("log1p", math.nan, 0.0),
        ("identity", math.inf, 0.0),
        ("log1p", -math.inf, 0.0),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_dense_feature_is_transformed_in_float32(
    transform: str, value: float, expected: float, policy: str
) -> None:
    """bfloat16 holds the years 1992 and 2000, and none between them."""
    schema = _dense_schema(transform=transform, mean=1990.0, scale=4.0)
    layer = RequestEmbedding(schema, 3, 1, dtype=policy)
    layer.build()
    kernel = np.zeros((4, 1))
    kernel[-1] = 1.0
    layer.candidate_projection.kernel.assign(kernel)
    ids = np.zeros((1, 1), "int32")
    inputs = {
        "behavior_item": ids,
        "candidate_item": ids,
        "candidate_price": np.full((1, 1), value, "float32"),
    }
    tolerance = 1e-5 if policy == "float32" else 2**-8
    for rows in (layer(inputs)[2], layer.candidates(inputs)):
        found = float(tf.cast(rows, tf.float32)[0, 0, 0])
        assert found == pytest.approx(expected, rel=tolerance, abs=1e-6)


def test_request_embedding_needs_sizes() -> None:
    fields = (CategoricalField(name="item", table="item"),)
    schema = DatasetSchema(
        name="toy",
        tables=(Table(name="item"),),
        user_fields=(),
        behavior_fields=fields,
        candidate_fields=fields,
    )
    with pytest.raises(ValueError, match=r"Without one: \['item'\]"):
        RequestEmbedding(schema, 3, 5)


@pytest.mark.parametrize(
    ("layer_class", "arguments", "message"),
    [
        (SwiGLU, [0], "`hidden_width` must be at least 1"),
        (BranchGate, [0], "`num_heads` must be at least 1"),
        (OutputGate, [0], "`num_heads` must be at least 1"),
        (RelTemporal, [0], "`num_heads` must be at least 1"),
        (RelTemporal, [2, UTC, ["hour", "time"]], "`biases` must be one or"),
        (BranchGate, [2, 0], "`num_branches` must be at least 1"),
        (EmbeddingTable, [1, 3], "`num_rows` must be at least 2"),
        (EmbeddingTable, [2, 0], "`width` must be at least 1"),
        (PredictionLayer, [0, (1,)], "`width` must be at least 1"),
        (PredictionLayer, [1, (3, 0)], "`hidden_units` must be at least one"),
        (MLPHead, [()], "`hidden_units` must be at least one number"),
        (MLPHead, [(3,), "swish"], "`activation` must be one of relu"),
    ],
)
def test_rejects_bad_arguments(
    layer_class: type, arguments: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer_class(*arguments)


def test_branch_gate_rejects_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="`num_heads` must divide the width 6"):
        BranchGate(4).build([(None, None, 6)] * 3)
