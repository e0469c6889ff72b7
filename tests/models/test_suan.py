"""SUAN against its own equations, written as loops in NumPy."""

import math
from typing import Any

import numpy as np
import pytest

from configs.models.suan import SUANRecipe
from sparsectr.layers.unified_attention_block import UnifiedAttentionBlock
from sparsectr.schema import DatasetSchema
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    make_requests,
    pad_left,
    sized_recipe,
)
from tests.planted_signal import BASE_RATE_LOSS, loss_after_training

SIZES = {"num_positions": 11}


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _rms(norm: Any, x: np.ndarray) -> np.ndarray:
    mean = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean + norm.epsilon) * _array(norm.scale)


def _attend(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    biases: list[float],
    heads: int,
) -> np.ndarray:
    """One query of all heads."""
    by_head = len(query) // heads
    sums = np.zeros_like(query)
    for h in range(heads):
        own = slice(h * by_head, (h + 1) * by_head)
        logits = keys[:, own] @ query[own] / np.sqrt(by_head) + biases
        weights = np.exp(logits - logits.max())
        sums[own] = weights @ values[:, own] / weights.sum()
    return sums


def _bias(encoding: Any, distance: int, seconds: int) -> float:
    bucket = math.floor(math.log(max(seconds, 1)) / 0.301)
    row = min(distance, encoding.num_positions - 1)
    position, time = encoding.position_bias, encoding.time_bias
    return _array(position)[row] + _array(time)[bucket]


def _block(
    block: Any, rows: np.ndarray, times: np.ndarray, tokens: np.ndarray | None
) -> np.ndarray:
    """One block over a history and, last, one candidate."""
    kernel = {
        name.removesuffix("_projection"): _array(getattr(block, name).kernel)
        for name in dir(block)
        if name.endswith("_projection") or name.startswith(("user_", "gate_"))
    }
    x = _rms(block.input_norm, rows)
    q, k, v = (x @ kernel[part] for part in ("query", "key", "value"))
    h, c = np.zeros_like(x), np.zeros_like(x)
    for i, row in enumerate(x):
        biases = [
            _bias(block.encoding, i - j, abs(times[i] - times[j]))
            for j in range(i + 1)
        ]
        read = _attend(q[i], k[: i + 1], v[: i + 1], biases, block.num_heads)
        h[i] = _rms(block.attention_norm, row + read @ kernel["output"])
        if tokens is not None:
            read = _attend(
                h[i] @ kernel["user_query"],
                tokens @ kernel["user_key"],
                tokens @ kernel["user_value"],
                [0.0] * len(tokens),
                block.num_heads,
            )
            c[i] = read @ kernel["user_output"]
    z = h
    if tokens is not None:
        # Of the behaviours alone: the last row is the candidate's.
        mean = np.sum(h[:-1] + c[:-1], axis=0) / max(len(h) - 1, 1)
        gates = np.maximum(mean @ kernel["gate_hidden"], 0.0)
        gates = np.exp(np.split(gates @ kernel["gate_output"], 2))
        gates /= gates.sum(axis=0)
        z = _rms(block.fusion_norm, h + gates[0] * h + gates[1] * c)
    feed = block.feed_forward
    gate = z @ _array(feed.gate.kernel)
    hidden = gate / (1.0 + np.exp(-gate)) * (z @ _array(feed.up.kernel))
    return z + hidden @ _array(feed.down.kernel)


def _tokens(model: Any, user: np.ndarray) -> np.ndarray:
    """The four fields of the schema, and its number."""
    fields = np.split(user[:-1], 4)
    number = model.number_token
    last = user[-1:] @ _array(number.kernel) + _array(number.bias)
    return np.array([*fields, last])


def _expected(
    model: Any, inputs: dict[str, Any], *, has_user: bool
) -> np.ndarray:
    user, behaviors, candidates = model.embedding(inputs)
    behaviors, candidates = _array(behaviors), _array(candidates)
    table = _array(model.positions.rows)
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        is_valid = inputs["behavior_time"][b] > 0
        x = np.array([*behaviors[b, is_valid], candidates[b, c]])
        places = np.arange(len(x))[::-1]
        x = x + table[np.minimum(places, len(table) - 1)]
        times = [*inputs["behavior_time"][b, is_valid]]
        times = np.array([*times, inputs["request_time"][b]])
        profile = _array(user)[b] if has_user else np.zeros(0)
        tokens = _tokens(model, profile) if has_user else None
        for block in model.blocks:
            x = _block(block, x, times, tokens)
        x = np.concatenate([x[-1], candidates[b, c], profile])
        hidden, last = model.head.hidden[0], model.head.output_unit
        x = x @ _array(hidden.kernel) + _array(hidden.bias)
        x = np.maximum(x, 0.0) @ _array(last.kernel)
        expected[b, c] = x[0] + _array(last.bias)[0]
    return expected


@pytest.mark.parametrize("has_user", [True, False])
def test_equals_the_equations(has_user: bool) -> None:
    schema: DatasetSchema = SCHEMA if has_user else without_user_fields(SCHEMA)
    model = random_model(schema, sized_recipe("suan", **SIZES), 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6], schema)
    expected = _expected(model, inputs, has_user=has_user)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(
        model(inputs).logits, expected, rtol=1e-4, atol=1e-4 * scale
    )


def test_the_gate_reads_neither_candidates_nor_padding() -> None:
    model = random_model(SCHEMA, sized_recipe("suan", **SIZES), 1)
    inputs = make_requests(2, [LENGTH, 0, 6])
    logits = model(inputs).logits.numpy()
    other = dict(inputs)
    other["candidate_item"] = inputs["candidate_item"].copy()
    other["candidate_item"][:, 1] = 2 + other["candidate_item"][:, 1] % 20
    found = model(other).logits.numpy()
    apart = [0, 2, 3, 4]
    np.testing.assert_array_equal(found[:, apart], logits[:, apart])
    assert np.all(found[:, 1] != logits[:, 1])
    gate = model.encode_user(inputs)["gate"]
    padded = model.encode_user(pad_left(inputs, 37))["gate"]
    np.testing.assert_allclose(padded, gate, rtol=1e-5, atol=1e-5)
    # Without any behaviour both sides count alike.
    np.testing.assert_array_equal(gate[1], np.full_like(gate[1], 0.5))
    assert np.all(np.std(gate, axis=0) > 1e-3)


def test_learns_what_histories_say() -> None:
    assert loss_after_training("suan") < 0.6 * BASE_RATE_LOSS


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="must divide the width 7"):
        UnifiedAttentionBlock(2, 5).build((None, None, 7))
    with pytest.raises(ValueError, match=r"divide width=32.*num_heads=5"):
        SUANRecipe(num_heads=5)
    with pytest.raises(ValueError, match=r"block_dropout_rate.*below 1"):
        SUANRecipe(block_dropout_rate=1.0)
