"""Turns of planes, against complex numbers."""

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.turn_planes import turn_planes

BATCH, ROWS, HEADS, PLANES = 3, 5, 7, 2


def _expected(rows: np.ndarray, angle: np.ndarray) -> np.ndarray:
    count = max(rows.shape[1], angle.shape[1])
    planes = rows.reshape(BATCH, -1, HEADS, 2, PLANES)
    turned = (planes[..., 0, :] + 1j * planes[..., 1, :]) * np.exp(1j * angle)
    parts = np.stack([turned.real, turned.imag], axis=3)
    return parts.reshape(BATCH, count, -1)


@pytest.mark.parametrize("num_rows", [ROWS, 1])
@pytest.mark.parametrize(
    "shape",
    [(BATCH, ROWS, HEADS, PLANES), (1, ROWS, 1, PLANES), (BATCH, 1, 1, PLANES)],
)
def test_equals_complex_numbers(num_rows: int, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(BATCH, num_rows, HEADS * 2 * PLANES))
    angle = random.normal(size=shape)
    found = turn_planes(
        tf.constant(rows, "float32"), tf.constant(angle, "float32"), HEADS
    )
    np.testing.assert_allclose(found, _expected(rows, angle), atol=1e-5)


def test_rows_keep_their_dtype_and_an_angle_of_0_changes_nothing() -> None:
    normal = np.random.default_rng(1).normal(size=(BATCH, ROWS, 28))
    rows = tf.cast(normal, tf.bfloat16)
    found = turn_planes(rows, tf.zeros((1, ROWS, 1, 2)), HEADS)
    assert found.dtype == tf.bfloat16
    np.testing.assert_array_equal(found, rows)
