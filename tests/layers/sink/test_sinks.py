"""What sinks are equal to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.sink.key_value_sink import KeyValueSink
from sparsectr.layers.sink.learned_sink import LearnedSink
from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.layers.sink.off_by_one_sink import OffByOneSink
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.head_attention import attend_block_diagonal, attend_by_head

BATCH, QUERIES, KEYS, HEADS, HEAD_WIDTH = 2, 5, 7, 3, 11
WIDTH = HEADS * HEAD_WIDTH
LOGITS = [0.7, -1.3, 40.0]
"""The last takes all weight."""

both_forms = pytest.mark.parametrize(
    "form", [attend_block_diagonal, attend_by_head]
)


def _sink(name: str) -> Sink:
    sink = OffByOneSink() if name == "off_by_one" else LearnedSink(LOGITS)
    sink.build()
    return sink


def _arrays(num_keys: int = KEYS) -> list[Any]:
    """Returns query, keys, values, bias and mask; one query sees nothing."""
    random = np.random.default_rng(0)
    mask = random.random((BATCH, QUERIES, num_keys)) < 0.6
    mask[1, 2] = False
    shapes = (
        (BATCH, QUERIES, WIDTH),
        (BATCH, num_keys, WIDTH),
        (BATCH, num_keys, WIDTH),
        (BATCH, QUERIES, HEADS, num_keys),
    )
    arrays = [random.normal(size=s).astype("float32") for s in shapes]
    return [*arrays, mask]


@both_forms
@pytest.mark.parametrize("name", ["off_by_one", "learned"])
def test_is_one_more_key_of_value_0(
    name: str, form: Callable[..., Any]
) -> None:
    """Whose logit is 0, or one of each head that no query changes."""
    query, keys, values, bias, mask = _arrays()
    outputs = form(
        query, keys, values, bias, mask, HEADS, _sink(name).numerators
    )
    zeros = np.zeros((BATCH, 1, WIDTH), "float32")
    logits = np.zeros(HEADS) if name == "off_by_one" else np.array(LOGITS)
    more = np.broadcast_to(logits[:, None], (BATCH, QUERIES, HEADS, 1))
    expected = form(
        query,
        np.concatenate([keys, zeros], axis=1),  # products with it are 0
        np.concatenate([values, zeros], axis=1),
        np.concatenate([bias, more], axis=3).astype("float32"),
        np.pad(mask, ((0, 0), (0, 0), (0, 1)), constant_values=True),
        HEADS,
        NoSink().numerators,
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert np.any(np.abs(outputs[0]) > 0.1)


@pytest.mark.parametrize("name", ["off_by_one", "learned"])
@pytest.mark.parametrize(
    ("form", "num_keys"),
    [
        (attend_block_diagonal, KEYS),
        (attend_by_head, KEYS),
        (attend_by_head, 0),
    ],
)
def test_nothing_to_read_is_0_with_finite_gradients(
    num_keys: int, name: str, form: Callable[..., Any]
) -> None:
    *arrays, mask = _arrays(num_keys)
    sources = [tf.Variable(array) for array in arrays]
    sink = _sink(name)
    with tf.GradientTape() as tape:
        outputs = form(*sources, mask, HEADS, sink.numerators)
        loss = tf.reduce_sum(outputs**2)
    assert np.all(outputs[1, 2] == 0)
    gradients = tape.gradient(loss, [*sources, *sink.trainable_weights])
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0) or num_keys == 0
    assert np.all(gradients[0][1, 2] == 0)


@pytest.mark.parametrize("name", ["off_by_one", "learned"])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_logits_of_any_size_are_finite(name: str, size: float) -> None:
    logits = np.full((2, HEADS, 4), size, "float32")
    mask = np.ones((2, 1, 4), bool)
    weights, total = _sink(name).numerators(logits, mask, 1)
    expected = 0.25 if size > 0 else 0.0
    np.testing.assert_allclose(weights / total, expected, rtol=1e-6)


def test_starts_where_it_is_told() -> None:
    np.testing.assert_array_equal(
        _sink("learned").logit, np.array(LOGITS, "float32")
    )


def test_a_learned_sink_has_heads() -> None:
    with pytest.raises(ValueError, match="`initial_logits` must be one num"):
        LearnedSink([])


@both_forms
def test_its_own_key_is_one_more_key(form: Callable[..., Any]) -> None:
    query, keys, values, bias, mask = _arrays()
    sink = KeyValueSink()
    sink.build((None, None, WIDTH))
    random = np.random.default_rng(1)
    for weight in sink.weights:
        weight.assign(random.normal(size=WIDTH))
    read = sink.with_own_key(keys, values, bias, mask)
    outputs = form(query, *read, HEADS, sink.numerators).numpy()
    b, n, h = 0, 1, 2
    own = slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH)
    valid = mask[b, n]
    logits = np.append(
        keys[b, valid, own] @ query[b, n, own] / HEAD_WIDTH**0.5
        + bias[b, n, h, valid],
        sink.key[own].numpy() @ query[b, n, own] / HEAD_WIDTH**0.5,
    )
    weights = np.exp(logits) / np.sum(np.exp(logits))
    read_values = [*values[b, valid, own], sink.value[own].numpy()]
    np.testing.assert_allclose(
        outputs[b, n, own], weights @ np.array(read_values), rtol=1e-5
    )
    # Of a query without a valid key it is all there is.
    np.testing.assert_allclose(outputs[1, 2], sink.value, rtol=1e-6)


def test_without_a_bias_its_own_key_has_none() -> None:
    _, keys, values, _, mask = _arrays()
    sink = KeyValueSink()
    sink.build((None, None, WIDTH))
    assert sink.with_own_key(keys, values, None, mask)[2] is None
