"""HSTU against its own equations, written as loops in NumPy."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from configs.models.hstu import HSTURecipe
from sparsectr.layers.attention.evo_attention import EvoAttention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.encoding.hstu_bias import HSTUBias
from sparsectr.models.hstu import HSTUBlock
from sparsectr.ops.causal_blocks import causal_blocks
from sparsectr.ops.places import places_of_history, places_of_request
from tests.keras_weights import random_model
from tests.layer_contract import check_layer
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    make_requests,
    pad_left,
    sized_recipe,
)
from tests.planted_signal import BASE_RATE_LOSS, loss_after_training

POSITIONS, NORMALIZER = 11, 31
SIZES = {"num_positions": POSITIONS, "attention_normalizer": NORMALIZER}


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.exp(-x))


def _normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def _bias(encoding: Any, distance: int, seconds: int) -> float:
    bucket = math.floor(math.log(max(seconds, 1)) / 0.301)
    row = min(distance, encoding.num_positions - 1)
    return (
        _array(encoding.position_bias)[row]
        + _array(encoding.time_bias)[min(bucket, 128)]
    )


def _block(block: Any, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """One block over a history and, last, one candidate."""
    width, heads = rows.shape[1], block.num_heads
    by_head = width // heads
    hidden = [
        _silu(_normal(x) @ _array(block.input_projection.kernel)) for x in rows
    ]
    u, q, k, v = np.split(np.array(hidden), 4, axis=1)
    outputs = np.zeros_like(rows)
    for i in range(len(rows)):
        sums = np.zeros(width)
        for j in range(i + 1):
            bias = _bias(block.encoding, i - j, abs(times[i] - times[j]))
            for h in range(heads):
                own = slice(h * by_head, (h + 1) * by_head)
                logit = q[i, own] @ k[j, own] / np.sqrt(by_head) + bias
                sums[own] += _silu(logit) / block.normalizer * v[j, own]
        output = block.output_projection
        gated = (u[i] * _normal(sums)) @ _array(output.kernel)
        outputs[i] = rows[i] + gated + _array(output.bias)
    return outputs


def test_equals_the_equations() -> None:
    model = random_model(SCHEMA, sized_recipe("hstu", **SIZES), 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        is_valid = inputs["behavior_time"][b] > 0
        rows = [*behaviors[b, is_valid], candidates[b, c]]
        times = [*inputs["behavior_time"][b, is_valid]]
        times += [inputs["request_time"][b]]
        x = np.array(rows) * np.sqrt(candidates.shape[2])
        for block in model.blocks:
            x = _block(block, x, np.array(times))
        x = np.concatenate([x[-1], candidates[b, c], user[b]])
        hidden, last = model.head.hidden[0], model.head.output_unit
        x = x @ _array(hidden.kernel) + _array(hidden.bias)
        x = np.maximum(x, 0.0) @ _array(last.kernel)
        expected[b, c] = x[0] + _array(last.bias)[0]
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(
        model(inputs).logits, expected, rtol=1e-4, atol=1e-4 * scale
    )


def test_no_score_depends_on_padding() -> None:
    """N is a constant, and positions count back from the newest."""
    model = random_model(SCHEMA, sized_recipe("hstu", **SIZES), 1)
    inputs = make_requests(2, [LENGTH, 0, 6])
    logits = model(inputs).logits
    for columns in (1, 37, 111):  # from one block of queries to three
        padded = model(pad_left(inputs, columns)).logits
        np.testing.assert_allclose(padded, logits, rtol=1e-5, atol=1e-5)


def test_bias_equals_a_loop() -> None:
    encoding = HSTUBias(POSITIONS)
    encoding.build()
    inputs = make_requests(3, [13, 0, 5], length=13)
    time, request_time = inputs["behavior_time"], inputs["request_time"]
    history = places_of_history(time)
    # Of behaviours, padding among them, and of candidates.
    found = encoding.bias(encoding.relate(history, history)).numpy()
    asked = encoding.relate(places_of_request(request_time), history)
    asked = encoding.bias(asked).numpy()
    for b, i, j in np.ndindex(3, 13, 13):
        if j <= i and time[b, j] > 0:
            expected = _bias(encoding, i - j, time[b, i] - time[b, j])
            assert found[b, i, 0, j] == pytest.approx(expected, abs=1e-6)
            expected = _bias(encoding, 13 - j, request_time[b] - time[b, j])
            assert asked[b, 0, 0, j] == pytest.approx(expected, abs=1e-6)


def test_keys_without_a_place_have_no_bias() -> None:
    encoding = HSTUBias(POSITIONS)
    encoding.build()
    history = places_of_history(np.array([[0, 5, 99]]))
    placed = encoding.bias(encoding.relate(history, history))
    more = encoding.bias(encoding.relate(history, history, 2))
    np.testing.assert_array_equal(more[..., :3], placed)
    np.testing.assert_array_equal(more[..., 3:], np.zeros((1, 3, 1, 2)))


def test_learns_what_histories_say() -> None:
    assert loss_after_training("hstu") < 0.6 * BASE_RATE_LOSS


@keras.saving.register_keras_serializable("contract_test")
class WholeHSTUBlock(HSTUBlock):
    """Behaviours pass the block, then candidates."""

    def call(
        self,
        behaviors: Any,
        candidates: Any,
        behavior_time: Any,
        request_time: Any,
    ) -> Any:
        history = places_of_history(behavior_time)
        request = places_of_request(request_time)
        relate = self.encoding.relate
        rows, keys, values = self.encode(
            behaviors, causal_blocks(history, relate), is_last=False
        )
        return rows, super().call(
            candidates,
            keys,
            values,
            relate(request, history),
            relate(request, request),
            history.valid,
        )

    def compute_output_shape(
        self,
        behaviors_shape: Any,
        candidates_shape: Any,
        behavior_time_shape: Any,
        request_time_shape: Any,
    ) -> Any:
        return behaviors_shape, candidates_shape


def test_block() -> None:
    random = np.random.default_rng(0)
    requests = make_requests(0, [13, 0, 3], length=13)
    check_layer(
        WholeHSTUBlock,
        {
            "num_heads": 7,
            "normalizer": 5,
            "num_positions": 11,
            "dropout_rate": 0.25,
        },
        (
            random.normal(size=(3, 13, 14)).astype("float32"),
            random.normal(size=(3, 5, 14)).astype("float32"),
            requests["behavior_time"],
            requests["request_time"],
        ),
        expected_output_shape=((3, 13, 14), (3, 5, 14)),
    )


def test_the_last_block_leaves_the_same_keys() -> None:
    block = HSTUBlock(2, 5, 7)
    block.build((None, None, 6))
    rows = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    time = np.array([[1, 2, 3], [0, 0, 9]])
    queries = causal_blocks(places_of_history(time), block.encoding.relate)
    _, *expected = block.encode(rows, queries, is_last=False)
    left, *found = block.encode(rows, (), is_last=True)
    assert left is None
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="`num_positions` must be at least 1"):
        HSTUBias(0)
    with pytest.raises(ValueError, match="must divide the width 7"):
        HSTUBlock(2, 5, 7).build((None, None, 7))
    with pytest.raises(ValueError, match=r"divide width=32.*num_heads=5"):
        HSTURecipe(num_heads=5)
    with pytest.raises(ValueError, match=r"block_dropout_rate.*below 1"):
        HSTURecipe(block_dropout_rate=1.0)


def test_the_bias_is_an_encoding_of_sparse_ctr() -> None:
    """Chunks, windows and the user's key, which stands nowhere."""
    inputs = make_requests(3, [13, 0, 5], length=13)
    rows = np.random.default_rng(0).normal(size=(3, 13, 14)).astype("float32")
    for attention in (
        FullAttention(7, HSTUBias(POSITIONS)),
        EvoAttention(7, 3, TimeChunking(4, 2), HSTUBias(POSITIONS)),
    ):
        attention.build(rows.shape)
        history = places_of_history(inputs["behavior_time"])
        plan = attention.plan(history, rows, for_history=True)
        encoded = attention.encode(rows, rows[:, 0], plan)
        request = places_of_request(inputs["request_time"])
        num_keys = plan.key_mask.shape[1]
        features = attention.relate(request, plan.keys, num_keys)
        for found in (
            attention.read_history(rows, encoded, plan),
            attention(rows, *encoded, features, plan.key_mask, request),
        ):
            assert found.shape == rows.shape
            assert np.all(np.isfinite(found))
