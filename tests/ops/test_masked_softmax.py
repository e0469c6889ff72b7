from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.masked_softmax import masked_exponentials


def masked_softmax(logits: Any, mask: Any) -> Any:
    weights, total = masked_exponentials(logits, mask)
    return weights / total


ROWS, KEYS = 3, 5


def test_equals_softmax_of_what_is_kept() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(ROWS, KEYS)).astype("float32")
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    weights = masked_softmax(logits, mask).numpy()
    powers = np.where(mask, np.exp(logits.astype("float64")), 0.0)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert np.all(weights[~mask] == 0)


@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_row_without_valid_key_is_zero(size: float) -> None:
    logits = tf.Variable(size * np.ones((ROWS, KEYS), "float32"))
    mask = np.zeros((ROWS, KEYS), bool)
    mask[0, 0] = True
    factors = np.arange(1.0, 1 + ROWS * KEYS, dtype="float32")
    with tf.GradientTape() as tape:
        weights = masked_softmax(logits, mask)
        loss = tf.reduce_sum(weights * factors.reshape(ROWS, KEYS))
    assert weights.numpy().tolist() == [[1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    gradient = tape.gradient(loss, logits).numpy()
    assert np.all(gradient == 0)


def test_masked_keys_change_nothing() -> None:
    logits = tf.Variable([[1.0, 2.0, 3.0]])
    mask = np.array([[True, True, False]])
    with tf.GradientTape() as tape:
        weights = masked_softmax(logits, mask)
        loss = weights[0, 0]
    other = masked_softmax(np.array([[1.0, 2.0, np.inf]], "float32"), mask)
    np.testing.assert_array_equal(other, weights)
    gradient = tape.gradient(loss, logits).numpy()[0]
    assert gradient[2] == 0
    assert gradient[0] > 0


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1000.0, 999.0, -1000.0]], "float32")
    weights = masked_softmax(logits, np.ones((1, 3), bool)).numpy()
    ratio = np.exp(-1.0)
    expected = [[1 / (1 + ratio), ratio / (1 + ratio), 0.0]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_computes_in_float32() -> None:
    logits = tf.constant([[1.0, 2.0]], tf.bfloat16)
    weights = masked_softmax(logits, np.ones((1, 2), bool))
    assert weights.dtype == tf.float32
    assert float(tf.reduce_sum(weights)) == pytest.approx(1.0, abs=1e-6)
