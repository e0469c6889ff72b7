"""Sparse attentions against the reference, and the keys that they read."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.layers.attention.dilated_attention import DilatedAttention
from sparsectr.layers.attention.linformer_attention import LinformerAttention
from sparsectr.layers.attention.native_sparse_attention import (
    NativeSparseAttention,
)
from sparsectr.layers.attention.semi_local_attention import SemiLocalAttention
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.ops.places import places_of_history, places_of_request
from sparsectr.ops.selected_blocks import (
    BlockSizes,
    block_importance,
    select_blocks,
)
from sparsectr.schema import DatasetSchema
from tests import reference
from tests.keras_weights import (
    random_model,
    reference_weights,
    without_user_fields,
)
from tests.make_requests import CONFIG, LENGTH, SCHEMA, make_requests

NUM_VALID = [*range(LENGTH + 1), LENGTH]

RECIPES = {
    "dilated": dataclasses.replace(CONFIG, attention="dilated"),
    "dilated_and_local": dataclasses.replace(
        CONFIG, attention="dilated", num_local_heads=2
    ),
    "dilated_local_alone": dataclasses.replace(
        CONFIG, attention="dilated", num_local_heads=3
    ),
    "dilated_beyond_reach": dataclasses.replace(
        CONFIG, attention="dilated", longest_history=13
    ),
    "semi_local": dataclasses.replace(CONFIG, attention="semi_local"),
    "semi_local_all": dataclasses.replace(
        CONFIG, attention="semi_local", semi_local_candidates="all"
    ),
    "semi_local_wide": dataclasses.replace(
        CONFIG, attention="semi_local", num_first=31, num_recent=2
    ),
    "linformer": dataclasses.replace(
        CONFIG, attention="linformer", encoding="none"
    ),
    "nsa": dataclasses.replace(CONFIG, attention="nsa"),
    "nsa_in_steps": dataclasses.replace(
        CONFIG, attention="nsa", nsa_block=7, nsa_stride=7, nsa_num_selected=3
    ),
    "nsa_by_mask": dataclasses.replace(
        CONFIG, attention="nsa", nsa_num_selected=5, nsa_num_forced=3
    ),
    "nsa_unforced": dataclasses.replace(
        CONFIG, attention="nsa", nsa_num_forced=0, num_local=17
    ),
}

every_attention = pytest.mark.parametrize("name", RECIPES)
every_causal_attention = pytest.mark.parametrize(
    "name", [name for name in RECIPES if name != "linformer"]
)


def _check(
    recipe: SparseCTRRecipe,
    num_valid: list[int],
    length: int,
    schema: DatasetSchema = SCHEMA,
) -> None:
    model = random_model(schema, recipe, 1)
    inputs = make_requests(1, num_valid, schema, length=length)
    logits = model(inputs).logits.numpy()
    expected = reference.forward(
        reference_weights(model), inputs, schema, recipe
    )
    scale = np.max(np.abs(expected))
    assert np.std(expected) > 0.1 * scale
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * scale)


@every_attention
def test_equals_the_reference(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name], num_blocks=3)
    _check(recipe, [LENGTH, 0, 1, 6, 17, LENGTH - 1], LENGTH)


@pytest.mark.parametrize(
    "name", ["dilated_and_local", "semi_local", "linformer", "nsa"]
)
def test_output_gates(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name], output_gate="head")
    _check(recipe, [LENGTH, 0, 6], LENGTH)


@every_attention
def test_histories_longer_than_said(name: str) -> None:
    schema = without_user_fields(SCHEMA)
    _check(RECIPES[name], [41, 3, 0], 41, schema)


@pytest.mark.parametrize("name", ["full", *RECIPES])
def test_a_history_without_columns(name: str) -> None:
    full = dataclasses.replace(CONFIG, attention="full")
    model = random_model(SCHEMA, {"full": full, **RECIPES}[name], 1)
    padded = make_requests(1, [0, 0], length=1)
    empty = {k: v[:, :0] if k[:4] == "beha" else v for k, v in padded.items()}
    np.testing.assert_allclose(
        model(empty).logits, model(padded).logits, rtol=1e-5, atol=1e-5
    )


def _read_by(attention: Any, length: int, num_valid: int) -> np.ndarray:
    """Returns which behaviors each behavior and a candidate read.

    All logits are equal and the values are a unit vector each, so that the
    weights of attention can be read from the result.
    """
    width = length
    attention.build((None, None, width))
    for name in ("query", "key"):
        kernel = getattr(attention, f"{name}_projection").kernel
        kernel.assign(np.zeros(kernel.shape))
    for name in ("value", "output"):
        kernel = getattr(attention, f"{name}_projection").kernel
        kernel.assign(np.eye(width))
    rows = np.eye(length, dtype="float32")[None]
    inputs = make_requests(1, [num_valid], length=length)
    history = places_of_history(inputs["behavior_time"])
    plan = attention.plan(history, rows, for_history=True)
    encoded = attention.encode(rows, rows[:, 0], plan)
    request = places_of_request(inputs["request_time"])
    features = attention.relate(request, plan.keys, plan.key_mask.shape[1])
    read = attention.read_history(rows, encoded, plan)
    asked = attention(rows[:, :1], *encoded, features, plan.key_mask, request)
    return np.concatenate([read, asked], axis=1)[0]


def _dense(length: int, num_valid: int, allowed: Any) -> np.ndarray:
    """Returns the same from a mask of all pairs."""
    first = length - num_valid
    mask = np.zeros((length + 1, length))
    for i in range(length + 1):
        for j in range(first, min(i + 1, length)):
            mask[i, j] = allowed(min(i, length - 1) - first, j - first)
    return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1.0)


@pytest.mark.parametrize("num_valid", [0, 1, 7, 37])
def test_dilated_reads_every_strideth(num_valid: int) -> None:
    attention = DilatedAttention(1, NoEncoding(), num_keys=5, stride=3)
    read = _read_by(attention, 37, num_valid)
    first = 37 - num_valid
    expected = _dense(
        37, num_valid, lambda i, j: (i - j) % 3 == 0 and i - j < 5 * 3
    )
    np.testing.assert_allclose(read[first:], expected[first:], atol=1e-6)
    if num_valid == 37:
        assert np.count_nonzero(read[-1] > 1e-6) == 5


def test_a_budget_of_53_keys_reaches_the_longest_history() -> None:
    recipe = SparseCTRRecipe(attention="dilated")
    arguments = recipe.sparse_arguments("dilated")
    assert arguments == {"num_keys": 53, "stride": 20, "num_local_heads": 0}
    evo = SparseCTRRecipe()
    assert recipe.sparse_keys("dilated") == (53, 53)
    assert evo.state_spec(SCHEMA).tensors[0].shape == (2, 53 + 1, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keys": 0}, "`num_keys` must be at least 1"),
        ({"stride": 0}, "`stride` must be at least 1"),
        ({"num_local_heads": 4}, "`num_local_heads` must be from 0 to num_he"),
    ],
)
def test_dilated_refuses(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DilatedAttention(3, NoEncoding(), **arguments)


@pytest.mark.parametrize("num_valid", [0, 1, 5, 7, 11, 37])
@pytest.mark.parametrize("candidates", ["budget", "all"])
def test_semi_local_reads_both_ends(candidates: str, num_valid: int) -> None:
    attention = SemiLocalAttention(
        1, NoEncoding(), num_first=5, num_recent=7, candidates=candidates
    )
    read = _read_by(attention, 37, num_valid)
    first = 37 - num_valid
    expected = _dense(37, num_valid, lambda i, j: j < 5 or i - j < 7)
    if candidates == "all":
        is_there = np.arange(37) >= first
        expected[-1] = is_there / max(num_valid, 1)
    elif num_valid == 37:
        assert np.count_nonzero(expected[-1]) == 5 + 7
    np.testing.assert_allclose(read[first:], expected[first:], atol=1e-6)


def test_both_ends_are_a_budget_of_53_keys() -> None:
    recipe = SparseCTRRecipe(attention="semi_local")
    assert recipe.sparse_keys("semi_local") == (53, 53)
    everything = dataclasses.replace(recipe, semi_local_candidates="all")
    assert everything.sparse_keys("semi_local") == ("L", "L")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_first": 0}, "`num_first` must be at least 1"),
        ({"num_recent": 0}, "`num_recent` must be at least 1"),
        ({"candidates": "none"}, "`candidates` must be one of budget, all"),
    ],
)
def test_semi_local_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemiLocalAttention(3, NoEncoding(), **arguments)


def test_linformer_has_a_state_without_places() -> None:
    recipe = SparseCTRRecipe(attention="linformer", encoding="none")
    assert recipe.sparse_keys("linformer") == (0, 53)
    model = random_model(SCHEMA, RECIPES["linformer"], 1)
    state = model.encode_user(make_requests(3, [LENGTH, 0]))
    assert state["key_time"].shape == (2, 0)
    assert np.all(state["key_mask"][0])
    assert not np.any(state["key_mask"][1])


def test_linformer_refuses_an_encoding() -> None:
    with pytest.raises(ValueError, match="`encoding` must be none for attent"):
        SparseCTRRecipe(attention="linformer")
    with pytest.raises(ValueError, match="`encoding` must be a NoEncoding"):
        LinformerAttention(3, RelTemporal(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keys": 0}, "`num_sums` must be at least 1"),
        ({"longest_history": 0}, "`longest_history` must be at least 1"),
    ],
)
def test_linformer_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinformerAttention(3, NoEncoding(), **arguments)


@pytest.mark.parametrize("num_valid", [[LENGTH, 0, 1, 6, 17]])
def test_nsa_gathers_what_a_mask_of_all_pairs_lets_through(
    num_valid: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPES["nsa"], num_blocks=3)
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, num_valid)
    assert not model.blocks[0].attention._reads_by_mask
    gathered = model(inputs).logits
    monkeypatch.setattr(NativeSparseAttention, "_reads_by_mask", True)
    np.testing.assert_allclose(
        model(inputs).logits, gathered, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("length", [64, 1024])
def test_nsa_reads_a_budget_of_53_keys(length: int) -> None:
    recipe = SparseCTRRecipe(
        attention="nsa", num_heads=2, width=4, embedding_dim=2, num_blocks=1
    )
    assert recipe.sparse_keys("nsa") == ("L + 21", "L + 21")
    keys = recipe.state_spec(SCHEMA).tensors[0]
    assert keys.sizes(1024) == [1, 1024 + 21, 4]
    model = random_model(SCHEMA, recipe, 1)
    trace = model(make_requests(1, [length], length=length), trace=True).trace
    found = {
        name: np.count_nonzero(trace[f"block_0/{name}/weights"][0, 0, 0] > 0)
        for name in ("compressed", "selected", "window")
    }
    compressed = length // 64
    assert found == {"compressed": compressed, "selected": 32, "window": 5}


def test_published_nsa_selects_everything_of_1024() -> None:
    recipe = SparseCTRRecipe(
        num_heads=2, width=4, embedding_dim=2, num_blocks=1
    ).with_preset("nsa_published")
    model = random_model(SCHEMA, recipe, 1)
    assert model.blocks[0].attention._reads_by_mask
    trace = model(make_requests(1, [1024], length=1024), trace=True).trace
    weights = trace["block_0/selected/weights"].numpy()
    assert weights.shape == (1, 5, 2, 1024)
    assert np.count_nonzero(weights[0, 0, 0] > 0) == 1024


def test_selection_has_no_gradient() -> None:
    probabilities = tf.constant([[[0.3, 0.5, 0.2]]])
    sizes = BlockSizes(4, 4, 2)
    with tf.GradientTape() as tape:
        tape.watch(probabilities)
        importance = block_importance(probabilities, 5, sizes)
        loss = tf.reduce_sum(importance)
    # The five newest of six halves.
    np.testing.assert_allclose(
        importance[0, 0], np.array([0.3, 0.5, 0.5, 0.2, 0.2]) / 2
    )
    assert tape.gradient(loss, probabilities) is None


def test_forced_blocks_come_first_and_then_the_newer_of_equals() -> None:
    importance = tf.constant([[[0.0, 0.5, 0.5, 0.1, 0.0, 0.9]] * 2])
    position = tf.constant([[0, 4]])  # a candidate, and a row of block 4
    count = tf.constant([[11]])
    index, found = select_blocks(importance, position, count, 2, 4, 3)
    assert np.all(found)
    np.testing.assert_array_equal(index[0], [[5, 4, 0, 2], [4, 3, 0, 2]])
    index, _ = select_blocks(importance, position, count, 2, 4, 0)
    np.testing.assert_array_equal(index[0], [[5, 2, 1, 3], [2, 1, 3, 4]])
    _, found = select_blocks(importance, position, tf.constant([[3]]), 2, 4, 1)
    np.testing.assert_array_equal(found[0].numpy().sum(axis=1), [2, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (4, 0, 2)}, "`sizes` must be at least 1"),
        ({"num_selected": 0}, "`num_selected` must be at least 1"),
        ({"num_window": 0}, "`num_window` must be at least 1"),
        ({"longest_history": 0}, "`longest_history` must be at least 1"),
        ({"num_forced": 3}, "`num_forced` must be from 0 to 3 and to num_sel"),
    ],
)
def test_nsa_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NativeSparseAttention(3, NoEncoding(), **arguments)


def test_recipes_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="`num_local_heads` must be at most n"):
        SparseCTRRecipe(num_local_heads=9)
    with pytest.raises(ValueError, match="`nsa_num_forced` must be at most 2"):
        SparseCTRRecipe(nsa_num_forced=3)


@every_causal_attention
def test_plan_for_candidates_alone_relates_no_behaviors(name: str) -> None:
    model = random_model(SCHEMA, RECIPES[name], 1)
    layer: Any = model.blocks[0].attention
    inputs = make_requests(3, [LENGTH, 3])
    rows = model.embedding.behaviors(inputs)
    history = places_of_history(inputs["behavior_time"])
    plan = layer.plan(history, rows, for_history=False)
    encoded = layer.encode(rows, rows[:, 0], plan)
    with pytest.raises(ValueError, match="for_history"):
        layer.read_history(rows, encoded, plan)


@every_causal_attention
@pytest.mark.parametrize("changed", [28, 20, 12])
def test_the_future_does_not_change_the_past(name: str, changed: int) -> None:
    model = random_model(SCHEMA, RECIPES[name], 1)
    inputs = make_requests(2, [LENGTH, 20])
    hidden = model.embedding.behaviors(inputs).numpy()
    block = model.blocks[0]
    plan = block.attention.plan(
        places_of_history(inputs["behavior_time"]), hidden, for_history=True
    )
    other = hidden.copy()
    other[:, changed] += 1.0
    rows, others = (
        block.encode(x, hidden[:, 0], plan, is_last=False)[0].numpy()
        for x in (hidden, other)
    )
    # A product of many rows sums in another order where blocks differ.
    np.testing.assert_allclose(
        others[:, :changed], rows[:, :changed], rtol=1e-5, atol=1e-5
    )
    assert np.max(np.abs(others - rows)[0, changed]) > 1e-3
