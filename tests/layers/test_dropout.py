"""The mask of a batch, however the batch is divided."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.dropout import Dropout, part_of_batch

ROWS = np.random.default_rng(0).normal(size=(6, 5, 7)).astype(np.float32)


def _twice(mode, rows, part=None):
    """Returns what two calls make of rows; masks differ."""
    layer = Dropout(0.4, seed=3)

    def call(rows, part):
        whole = contextlib.nullcontext()
        with whole if part is None else part_of_batch(part, 3):
            return [layer(rows, training=True) for _ in range(2)]

    if mode != "eager":
        call = tf.function(call, jit_compile=mode == "xla")
    return call(rows, part if part is None else tf.constant(part))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_parts_have_the_masks_of_the_whole(mode):
    whole = _twice(mode, ROWS)
    parts = [
        _twice(mode, ROWS[2 * part : 2 * part + 2], part) for part in range(3)
    ]
    for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(found), expected)
    assert not np.array_equal(whole[0], whole[1])
    share = np.mean(np.asarray(whole) == 0.0)
    assert 0.3 < share < 0.5


def test_not_in_training():
    with part_of_batch(tf.constant(1), 3):
        np.testing.assert_array_equal(Dropout(0.4)(ROWS), ROWS)
        same = Dropout(0.0)(ROWS, training=True)
    np.testing.assert_array_equal(same, ROWS)
