"""BST against its own equations, written as loops in NumPy."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from configs.models.bst import BSTRecipe
from sparsectr.layers.transformer_block import TransformerBlock
from tests.keras_weights import random_model
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    make_requests,
    sized_recipe,
)
from tests.planted_signal import BASE_RATE_LOSS, loss_after_training


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _normal(norm: Any, x: np.ndarray) -> np.ndarray:
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    return x * _array(norm.gamma) + _array(norm.beta)


def _block(block: Any, rows: np.ndarray, *, is_causal: bool) -> np.ndarray:
    heads = block.num_heads
    by_head = rows.shape[1] // heads
    q, k, v = (
        rows @ _array(getattr(block, f"{part}_projection").kernel)
        for part in ("query", "key", "value")
    )
    outputs = np.zeros_like(rows)
    for i, row in enumerate(rows):
        end = i + 1 if is_causal else len(rows)
        sums = np.zeros_like(row)
        for h in range(heads):
            own = slice(h * by_head, (h + 1) * by_head)
            logits = k[:end, own] @ q[i, own] / np.sqrt(by_head)
            weights = np.exp(logits - logits.max())
            sums[own] = weights @ v[:end, own] / weights.sum()
        attended = sums @ _array(block.output_projection.kernel)
        z = _normal(block.attention_norm, row + attended)
        hidden = z @ _array(block.hidden.kernel) + _array(block.hidden.bias)
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        last = block.output_unit
        f = hidden @ _array(last.kernel) + _array(last.bias)
        outputs[i] = _normal(block.feed_forward_norm, z + f)
    return outputs


def _expected(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    user, behaviors, candidates = map(_array, model.embedding(inputs))
    table, recipe = _array(model.gap.table.rows), model.recipe
    is_causal = recipe.mode == "listwise" or not recipe.bidirectional
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        rows = []
        for row, time in zip(
            behaviors[b], inputs["behavior_time"][b], strict=True
        ):
            gap = int(inputs["request_time"][b] - time)
            if time > 0:  # the logarithm of an integer is its length in bits
                rows.append(row + table[gap.bit_length()])
        x = np.array([*rows, candidates[b, c] + table[1]])
        for block in model.blocks:
            x = _block(block, x, is_causal=is_causal)
        pooled = x[-1] if recipe.pool == "target" else x.mean(axis=0)
        x = np.concatenate([pooled, candidates[b, c], user[b]])
        hidden, last = model.head.hidden[0], model.head.output_unit
        x = x @ _array(hidden.kernel) + _array(hidden.bias)
        x = np.maximum(x, 0.0) @ _array(last.kernel)
        expected[b, c] = x[0] + _array(last.bias)[0]
    return expected


@pytest.mark.parametrize("pool", ["target", "mean"])
@pytest.mark.parametrize("mode", ["listwise", "faithful"])
def test_equals_the_equations(mode: str, pool: str) -> None:
    recipe = sized_recipe("bst", mode=mode, pool=pool)
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    expected = _expected(model, inputs)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(
        model(inputs).logits, expected, rtol=1e-4, atol=1e-4 * scale
    )


def _same_weights(recipe: BSTRecipe, *others: BSTRecipe) -> list[Any]:
    return [random_model(SCHEMA, other, 1) for other in (recipe, *others)]


@pytest.mark.parametrize("pool", ["target", "mean"])
@pytest.mark.parametrize("num_candidates", [1, 5])
def test_listwise_equals_faithful_if_causal(
    num_candidates: int, pool: str
) -> None:
    """No behaviour reads its candidate then, however many there are."""
    recipe = sized_recipe("bst", pool=pool)
    listwise, causal, faithful = _same_weights(
        recipe,
        dataclasses.replace(recipe, mode="faithful", bidirectional=False),
        dataclasses.replace(recipe, mode="faithful"),
    )
    inputs = make_requests(
        2, [71, 0, 6], length=71, num_candidates=num_candidates
    )
    logits = listwise(inputs).logits.numpy()
    np.testing.assert_allclose(
        causal(inputs).logits, logits, rtol=1e-5, atol=1e-5
    )
    assert np.max(np.abs(faithful(inputs).logits - logits)) > 0.01


def test_the_default_equals_the_published_attention() -> None:
    """Of one block whose last row alone is read."""
    recipe = dataclasses.replace(sized_recipe("bst"), num_blocks=1)
    listwise, faithful = _same_weights(
        recipe, dataclasses.replace(recipe, mode="faithful")
    )
    inputs = make_requests(2, [LENGTH, 0, 6])
    np.testing.assert_allclose(
        faithful(inputs).logits, listwise(inputs).logits, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mode", ["listwise", "faithful"])
def test_learns_what_histories_say(mode: str) -> None:
    assert loss_after_training("bst", mode=mode) < 0.6 * BASE_RATE_LOSS


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="must divide the width 7"):
        TransformerBlock(2).build((None, None, 7))
    with pytest.raises(ValueError, match=r"divide width=32.*num_heads=5"):
        BSTRecipe(num_heads=5)
    with pytest.raises(ValueError, match=r"block_dropout_rate.*below 1"):
        BSTRecipe(block_dropout_rate=1.0)
    with pytest.raises(ValueError, match=r"mode.*listwise, faithful"):
        BSTRecipe(mode="pointwise")
