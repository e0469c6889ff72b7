"""Multi-head attention against the reference, in both of its forms."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.ops import head_attention
from sparsectr.ops.head_attention import (
    attend,
    attend_block_diagonal,
    attend_by_head,
    head_indicator,
)
from tests import reference
from tests.reference.attention import attend as reference_attend

BATCH, QUERIES, KEYS, HEADS, HEAD_WIDTH = 2, 5, 7, 3, 11
PLAIN = NoSink().numerators
WIDTH = HEADS * HEAD_WIDTH

both_forms = pytest.mark.parametrize(
    "form", [attend_block_diagonal, attend_by_head]
)


def _arrays() -> tuple[np.ndarray, ...]:
    """Returns query, keys, values, bias and mask; one query sees nothing."""
    random = np.random.default_rng(0)
    mask = random.random((BATCH, QUERIES, KEYS)) < 0.6
    mask[1, 2] = False
    mask[0, 1] = np.arange(KEYS) == 3
    return (
        random.normal(size=(BATCH, QUERIES, WIDTH)).astype("float32"),
        random.normal(size=(BATCH, KEYS, WIDTH)).astype("float32"),
        random.normal(size=(BATCH, KEYS, WIDTH)).astype("float32"),
        random.normal(size=(BATCH, QUERIES, HEADS, KEYS)).astype("float32"),
        mask,
    )


@both_forms
@pytest.mark.parametrize("has_bias", [True, False])
def test_equals_the_reference(form: Callable[..., Any], has_bias: bool) -> None:
    query, keys, values, bias, mask = _arrays()
    if not has_bias:
        bias = np.zeros_like(bias)
    outputs = form(
        query, keys, values, bias if has_bias else None, mask, HEADS, PLAIN
    ).numpy()
    assert outputs.shape == (BATCH, QUERIES, WIDTH)
    for b in range(BATCH):
        # Numbers in place of times pick the bias.
        expected = reference_attend(
            query[b].astype("float64"),
            keys[b].astype("float64"),
            values[b].astype("float64"),
            range(QUERIES),
            range(KEYS),
            [np.flatnonzero(row).tolist() for row in mask[b]],
            lambda q, k, b=b: bias[b, q, :, k].astype("float64"),
            HEADS,
        )
        np.testing.assert_allclose(outputs[b], expected, rtol=1e-5, atol=1e-6)
    assert np.all(outputs[1, 2] == 0)
    np.testing.assert_allclose(outputs[0, 1], values[0, 3], rtol=1e-6)


@pytest.mark.parametrize("num_keys", [127, 131])
def test_few_and_many_keys(num_keys: int) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(3, BATCH, num_keys, WIDTH)).astype("float32")
    query, keys, values = rows
    bias = random.normal(size=(BATCH, 1, HEADS, num_keys)).astype("float32")
    mask = random.random((BATCH, 1, num_keys)) < 0.6
    given = (query[:, :QUERIES], keys, values, bias, mask, HEADS, PLAIN)
    outputs = attend(*given)
    for form in (attend_block_diagonal, attend_by_head):
        np.testing.assert_allclose(outputs, form(*given), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("num_keys", "form"),
    [
        (127, "attend_block_diagonal"),
        (128, "attend_by_head"),
        (None, "attend_by_head"),
    ],
)
def test_form_for_a_number_of_keys(
    num_keys: int | None, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for name in ("attend_block_diagonal", "attend_by_head"):
        monkeypatch.setattr(
            head_attention, name, lambda *_, name=name: called.append(name)
        )
    keys = keras.KerasTensor((BATCH, num_keys, WIDTH))
    attend(keys, keys, keys, None, None, HEADS, PLAIN)
    assert called == [form]


@both_forms
def test_what_one_row_serves_all_queries(form: Callable[..., Any]) -> None:
    """Candidates share bias and mask; both broadcast."""
    query, keys, values, bias, mask = _arrays()
    bias, mask = bias[:, :1], mask[:, :1]
    shared = form(query, keys, values, bias, mask, HEADS, PLAIN)
    repeated = form(
        query,
        keys,
        values,
        np.repeat(bias, QUERIES, axis=1),
        np.repeat(mask, QUERIES, axis=1),
        HEADS,
        PLAIN,
    )
    np.testing.assert_allclose(shared, repeated, rtol=1e-6)


@both_forms
def test_gradients_are_finite_where_nothing_is_seen(
    form: Callable[..., Any],
) -> None:
    sources = [tf.Variable(array) for array in _arrays()[:4]]
    mask = np.zeros((BATCH, QUERIES, KEYS), bool)
    mask[0] = True
    with tf.GradientTape() as tape:
        outputs = form(*sources, mask, HEADS, PLAIN)
        loss = tf.reduce_sum(outputs**2)
    for gradient in tape.gradient(loss, sources):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient[0] != 0)
        assert np.all(gradient[1] == 0)


@both_forms
def test_logits_are_float32_in_bfloat16(form: Callable[..., Any]) -> None:
    """A bias of 30 must not round away what tells two keys apart."""
    query = tf.zeros((1, 1, HEADS), tf.bfloat16)
    keys = tf.zeros((1, 2, HEADS), tf.bfloat16)
    values = tf.constant([[[1.0] * HEADS, [0.0] * HEADS]], tf.bfloat16)
    bias = np.array([30.0, 30.05], "float32") * np.ones((1, 1, HEADS, 1))
    mask = np.ones((1, 1, 2), bool)
    outputs = form(
        query, keys, values, bias.astype("float32"), mask, HEADS, PLAIN
    )
    assert outputs.dtype == tf.bfloat16
    weight = float(reference.attention.softmax(np.array([30.0, 30.05]))[0])
    found = tf.cast(outputs, tf.float32).numpy().ravel()
    np.testing.assert_allclose(found, weight, rtol=2**-8)
    assert weight < 0.5 - 2**-8


def test_indicator_names_the_head_of_each_column() -> None:
    indicator = head_indicator(WIDTH, HEADS, "float32").numpy()
    expected = np.repeat(np.eye(HEADS), HEAD_WIDTH, axis=0)
    np.testing.assert_array_equal(indicator, expected)
