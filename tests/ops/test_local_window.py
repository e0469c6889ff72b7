"""The local window against the reference."""

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.ops.local_window import attend_window, shift, windows
from tests.reference.attention import attend as reference_attend

BATCH, HEADS, HEAD_WIDTH = 2, 3, 7
WIDTH = HEADS * HEAD_WIDTH


def test_shift_moves_towards_newer() -> None:
    rows = np.arange(1, 4)[np.newaxis]
    moved = [shift(rows, steps).numpy()[0].tolist() for steps in (1, 2, 3, 5)]
    assert shift(rows, 0) is rows
    assert moved == [[0, 1, 2], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_windows_are_oldest_first() -> None:
    rows = np.array([[5, 6, 7]])
    assert windows(rows, 2).numpy().tolist() == [[[0, 5], [5, 6], [6, 7]]]
    assert windows(rows, 4).numpy()[0, 1].tolist() == [0, 0, 5, 6]


@pytest.mark.parametrize(
    ("length", "size"), [(11, 1), (11, 5), (11, 13), (1, 5)]
)
@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_equals_the_reference(
    length: int, size: int, has_user: bool, has_bias: bool
) -> None:
    random = np.random.default_rng(length + size)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype("float32")

    query, keys, values = (draw(BATCH, length, WIDTH) for _ in range(3))
    user_key, user_value = draw(BATCH, 1, WIDTH), draw(BATCH, 1, WIDTH)
    bias = draw(BATCH, length, HEADS, size + 1) * has_bias
    first = np.array([0, min(3, length)])
    position = np.arange(length)[:, np.newaxis]
    place = position + np.arange(1 - size, 1)  # [L, w]
    mask = place >= first[:, np.newaxis, np.newaxis]  # [B, L, w]
    mask = np.pad(mask, ((0, 0), (0, 0), (0, 1)), constant_values=has_user)
    outputs = attend_window(
        query,
        keys,
        values,
        [user_key],
        user_value,
        bias if has_bias else None,
        mask,
        HEADS,
        NoSink().numerators,
    ).numpy()
    for b in range(BATCH):
        visible = [
            list(range(max(first[b], n - size + 1), n + 1))
            + [length] * has_user
            for n in range(length)
        ]

        def bias_of(n: int, j: int, b: int = b) -> np.ndarray:
            column = size if j == length else j - n + size - 1
            return bias[b, n, :, column].astype("float64")

        expected = reference_attend(
            query[b].astype("float64"),
            np.concatenate([keys[b], user_key[b]]).astype("float64"),
            np.concatenate([values[b], user_value[b]]).astype("float64"),
            range(length),
            range(length + 1),
            visible,
            bias_of,
            HEADS,
        )
        np.testing.assert_allclose(outputs[b], expected, rtol=1e-5, atol=1e-6)


def test_row_without_valid_key_is_zero_with_finite_gradients() -> None:
    random = np.random.default_rng(0)
    sources = [
        tf.Variable(random.normal(size=(1, rows, WIDTH)).astype("float32"))
        for rows in (5, 5, 5, 1, 1)
    ]
    mask = np.zeros((1, 5, 4), bool)
    mask[0, 4] = True
    with tf.GradientTape() as tape:
        outputs = attend_window(
            *sources[:3],
            [sources[3]],
            sources[4],
            None,
            mask,
            HEADS,
            NoSink().numerators,
        )
        loss = tf.reduce_sum(outputs**2)
    assert np.all(outputs[0, :4] == 0)
    assert np.all(outputs[0, 4] != 0)
    query, *others = tape.gradient(loss, sources)
    assert np.all(query[0, :4] == 0)
    for gradient in (query, *others):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)
