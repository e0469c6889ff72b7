import numpy as np
import pytest

from data_pipelines.stores.id_sets import IdSets, make_sets

SETS = [[3, 1], [], [7], [1, 3, 3], []]


def _sets() -> IdSets:
    values = np.array([v for row in SETS for v in row], np.uint8)
    return make_sets(np.array([len(row) for row in SETS]), values)


def _lists(sets: IdSets) -> list[list[int]]:
    ends = sets.offset.tolist()
    values = sets.values.tolist()
    return [values[ends[n] : ends[n + 1]] for n in range(len(sets))]


def test_sets_are_rows_of_any_length() -> None:
    sets = _sets()
    assert _lists(sets) == SETS
    assert sets.longest == 3
    assert sets.counts.tolist() == [2, 0, 1, 3, 0]
    # Half the bytes of int64, for as long as they hold the offsets.
    assert sets.offset.dtype == np.uint32


@pytest.mark.parametrize(
    "rows", [np.array([3, 0, 3]), np.array([], int), slice(1, 4), slice(None)]
)
def test_takes_rows(rows: np.ndarray | slice) -> None:
    expected = np.array([*SETS, None], object)[:-1][rows].tolist()
    assert _lists(_sets()[rows]) == expected


def test_takes_rows_by_a_mask() -> None:
    mask = np.array([True, False, False, True, True])
    assert _lists(_sets()[mask]) == [[3, 1], [1, 3, 3], []]


def test_pads_behind() -> None:
    padded = _sets()[np.array([3, 1, 0])].padded(4)
    assert padded.tolist() == [[1, 3, 3, 0], [0, 0, 0, 0], [3, 1, 0, 0]]
    assert padded.dtype == np.uint8
    assert _sets()[np.array([1])].padded(2).tolist() == [[0, 0]]


def test_maps_every_id() -> None:
    doubled = _sets().map(2 * np.arange(8))
    assert _lists(doubled) == [[2 * v for v in row] for row in SETS]


def test_hashes_tell_order_and_number() -> None:
    hashed = _sets().hashed().tolist()
    assert hashed[1] == hashed[4]
    assert len(set(hashed)) == 4
    other = make_sets(np.array([2, 2]), np.array([1, 3, 3, 1], np.int32))
    # Whatever the width of the ids and the rows before.
    assert other.hashed()[1] == hashed[0]
    assert other.hashed()[0] != hashed[0]


def test_no_rows() -> None:
    nothing = make_sets(np.array([], int), np.array([], np.int32))
    assert len(nothing) == nothing.longest == 0
    assert nothing.padded(3).shape == (0, 3)
    assert nothing.hashed().shape == (0,)
