"""Groups of rows, against slices of the same history."""

import numpy as np
import pytest

from sparsectr.ops.row_groups import (
    joined_blocks,
    joined_classes,
    newest_rows,
    row_blocks,
    stride_classes,
    with_previous,
)

LENGTHS = pytest.mark.parametrize("length", [0, 1, 5, 13, 15])


def _rows(length: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(2, length, 3)).astype("float32")


@LENGTHS
def test_newest_rows(length: int) -> None:
    rows = _rows(length)
    padded = np.pad(rows, ((0, 0), (7, 0), (0, 0)))
    np.testing.assert_array_equal(newest_rows(rows, 7), padded[:, -7:])


@LENGTHS
def test_blocks_end_with_the_newest_row(length: int) -> None:
    rows = _rows(length)
    blocks = row_blocks(rows, 5)
    assert blocks.shape == (2, max(1, -(-length // 5)), 5, 3)
    np.testing.assert_array_equal(joined_blocks(blocks, length), rows)
    before = with_previous(blocks)
    np.testing.assert_array_equal(before[:, :, 5:], blocks)
    np.testing.assert_array_equal(before[:, 1:, :5], blocks[:, :-1])
    assert not np.any(before[:, 0, :5])


@LENGTHS
def test_classes_are_a_stride_apart(length: int) -> None:
    rows = _rows(length)
    classes = np.asarray(stride_classes(rows, 5))
    np.testing.assert_array_equal(joined_classes(classes, length), rows)
    for back in range(min(5, length)):
        found = rows[:, ::-1][:, back::5][:, ::-1]
        mine = classes[:, 4 - back]
        np.testing.assert_array_equal(mine[:, -found.shape[1] :], found)
        assert not np.any(mine[:, : -found.shape[1]])
