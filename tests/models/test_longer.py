"""LONGER against its own equations in NumPy.

The reference knows neither padding nor the last layer's short cut: rows are
those of real behaviors, and every layer computes every row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs.models.longer import LONGERRecipe
from sparsectr.model_recipe import StateTensor
from tests.keras_weights import random_model
from tests.make_requests import LENGTH, SCHEMA, make_requests, sized_recipe
from tests.seen_before_signal import unexplained_share

Rows = list[np.ndarray]


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def _norm(layer: Any, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2) + layer.epsilon) * _array(layer.scale)


def _dense(layer: Any, x: np.ndarray) -> np.ndarray:
    y = x @ _array(layer.kernel)
    return y if layer.bias is None else y + _array(layer.bias)


def _block(
    block: Any, rows: Rows, asking: list[int], sees: Callable[[int, int], bool]
) -> Rows:
    """A plain transformer block: row `i` reads every `j` that it sees."""
    normed = [_norm(block.attention_norm, x) for x in rows]
    query, keys, values = (
        [
            x @ _array(getattr(block, f"{name}_projection").kernel)
            for x in normed
        ]
        for name in ("query", "key", "value")
    )
    size = len(rows[0]) // block.num_heads
    results = []
    for i in asking:
        read = [j for j in range(len(rows)) if sees(i, j)]
        attended = np.zeros(len(rows[0]))
        for head in range(block.num_heads):
            own = slice(head * size, (head + 1) * size)
            logits = np.array(
                [query[i][own] @ keys[j][own] / size**0.5 for j in read]
            )
            weights = np.exp(logits - logits.max())
            for j, weight in zip(read, weights / weights.sum(), strict=True):
                attended[own] += weight * values[j][own]
        x = rows[i] + attended @ _array(block.output_projection.kernel)
        hidden = _dense(block.feed_forward_1, _norm(block.feed_forward_norm, x))
        results.append(x + _dense(block.feed_forward_2, np.maximum(hidden, 0)))
    return results


def _behaviors(model: Any, inputs: dict[str, Any], b: int) -> Rows:
    """The real behaviors of a request, before they are merged."""
    rows = _array(model.embedding.behaviors(inputs))[b]
    times = inputs["behavior_time"][b]
    found = []
    for i in np.flatnonzero(times):
        gap = int(inputs["request_time"][b] - times[i])
        place = min(len(times) - i, model.recipe.max_positions)
        x = np.concatenate(
            [rows[i], _array(model.gap.table.rows)[gap.bit_length()]]
        )
        x = x + _array(model.positions.rows)[place]
        x = np.maximum(_dense(model.token_hidden, x), 0.0)
        found.append(_dense(model.token_output, x))
    return found


def _merged(model: Any, behaviors: Rows) -> Rows:
    """Groups of K, counted from the newest; the oldest may lack members."""
    recipe = model.recipe
    tokens: Rows = []
    end = len(behaviors)
    while end > 0:
        group = behaviors[max(end - recipe.merge, 0) : end]
        end -= recipe.merge
        if recipe.inner_transformer:
            everyone = list(range(len(group)))
            group = _block(
                model.inner_block, group, everyone, lambda i, j: True
            )
        missing = recipe.merge - len(group)
        x = np.concatenate([np.zeros(missing * recipe.width), *group])
        if recipe.projects_tokens:
            x = _dense(model.token_projection, x)
        tokens.insert(0, x)
    return tokens


def _logit(
    model: Any, tokens: Rows, candidate: np.ndarray, user: np.ndarray
) -> float:
    recipe = model.recipe
    rows = [_array(model.cls)[0], _dense(model.user_token, user), *tokens]
    rows.append(_dense(model.candidate_token, candidate))

    for block in model.blocks:
        last = len(rows) - 1

        def sees(i: int, j: int, last: int = last) -> bool:
            if i == last:
                return True  # the candidate
            if j == last:
                return False
            return i < 2 or j <= i  # CLS and the user, or a token

        newest = list(range(2, last))[-recipe.num_queries :]
        rows = _block(block, rows, [0, 1, *newest, last], sees)
    rows = [_norm(model.output_norm, x) for x in rows]
    x = np.concatenate([rows[-1], rows[0], rows[1], user])
    hidden, output = model.head.hidden[0], model.head.output_unit
    x = np.maximum(_dense(hidden, x), 0.0)
    return float(_dense(output, x)[0])


def _check(recipe: Any) -> None:
    model = random_model(SCHEMA, recipe, 1)
    inputs = make_requests(2, [7, 0, 1], length=11)
    user = _array(model.embedding.user(inputs))
    candidates = _array(model.embedding.candidates(inputs))
    expected = np.zeros(candidates.shape[:2])
    for b, c in np.ndindex(expected.shape):
        tokens = _merged(model, _behaviors(model, inputs, b))
        expected[b, c] = _logit(model, tokens, candidates[b, c], user[b])
    logits = model(inputs).logits
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_without_merging_it_is_a_plain_transformer(num_layers: int) -> None:
    recipe = sized_recipe(
        "longer", merge=1, num_queries=11, num_layers=num_layers
    )
    assert not recipe.projects_tokens
    _check(recipe)


@pytest.mark.parametrize("inner_transformer", [False, True])
@pytest.mark.parametrize("merged_width", [0, 21, 3 * 39])
def test_groups_begin_at_the_newest(
    inner_transformer: bool, merged_width: int
) -> None:
    """Of 7 behaviors two groups are whole, and one has a single member."""
    recipe = sized_recipe(
        "longer",
        merge=3,
        merged_width=merged_width,
        inner_transformer=inner_transformer,
        num_queries=2,
        max_positions=5,
    )
    assert recipe.projects_tokens == (merged_width != 3 * 39)
    _check(recipe)


def test_sizes_of_the_state() -> None:
    recipe = LONGERRecipe(merge=4, num_queries=5)
    tensors = {t.name: t for t in recipe.state_spec(SCHEMA).tensors}
    assert tensors["keys_0"].shape == ("L/4", 32)
    assert tensors["keys_1"].shape == ("min(L/4, 5)", 32)
    for length, first, second in ((0, 0, 0), (1, 1, 1), (17, 5, 5), (29, 8, 5)):
        assert tensors["keys_0"].sizes(length) == [first, 32]
        assert tensors["keys_1"].sizes(length) == [second, 32]
    for shape, message in (("B", "'B'"), ("min(L/4", r"'min\(L/4'")):
        with pytest.raises(ValueError, match=f"`shape` must.*{message}"):
            StateTensor("keys", "float32", (shape,), "").sizes(3)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must divide merged_width=20"):
        LONGERRecipe(merged_width=20)
    LONGERRecipe(width=20, merged_width=80)
    with pytest.raises(ValueError, match=r"must divide width=20"):
        LONGERRecipe(width=20, merged_width=80, inner_transformer=True)


def test_presets_are_as_wide_as_what_they_merge() -> None:
    for name, merge in (("merge-4", 4), ("merge-8", 8)):
        recipe = LONGERRecipe().with_preset(name)
        assert recipe.merge == merge
        assert not recipe.projects_tokens


def test_trace_holds_the_weights_of_tokens() -> None:
    model = random_model(SCHEMA, sized_recipe("longer", merge=3), 1)
    trace = model(make_requests(2, [LENGTH, 4]), trace=True).trace
    assert list(trace) == ["block_0/weights", "block_1/weights"]
    for weights in trace.values():
        # Two global tokens, of each request ten of behaviors, and itself.
        assert weights.shape == (2, 5, 3, 2 + 10 + 1)
        np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-5)
        assert np.all(weights[1, ..., 2:-3] == 0)
        assert np.all(weights[1, ..., -3:] != 0)


def test_learns_what_is_in_the_history() -> None:
    # A merged token holds several behaviors: that takes longer to learn.
    recipe = LONGERRecipe(width=16, embedding_dim=16, num_heads=4, merge=1)
    share = unexplained_share(recipe, num_steps=250, learning_rate=0.005)
    assert share < 0.7
