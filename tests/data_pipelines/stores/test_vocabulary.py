import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.stores.vocabulary import (
    Vocabulary,
    hash_values,
    id_dtype,
)
from sparsectr.schema import Table


def _column(*values: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def _counts(counts: dict[object, int]) -> pa.Table:
    return pa.table({"value": list(counts), "count": list(counts.values())})


def test_orders_by_count_then_value() -> None:
    vocabulary = Vocabulary.from_counts(
        Table(name="t"), _counts({5: 2, 8: 1, 9: 3, 3: 2})
    )
    assert vocabulary.values is not None
    assert vocabulary.values.to_pylist() == [9, 3, 5, 8]
    assert vocabulary.table.size == 6


def test_min_count_leaves_rare_values_out_of_vocabulary() -> None:
    vocabulary = Vocabulary.from_counts(
        Table(name="t", min_count=2, value_type="string"),
        _counts({"a": 2, "b": 1}),
    )
    ids = vocabulary.encode(_column("b", "a", None, "new"))
    assert ids.tolist() == [1, 2, 0, 1]
    assert ids.dtype == np.uint8


def test_zero_is_a_value_like_any_other() -> None:
    vocabulary = Vocabulary.from_counts(Table(name="t"), _counts({0: 2, 1: 1}))
    assert vocabulary.encode(_column(0, 1, None)).tolist() == [2, 3, 0]


def test_values_that_only_the_test_shows_have_no_row() -> None:
    # Every value is counted, some of them 0 times in training.
    vocabulary = Vocabulary.from_counts(
        Table(name="t"), _counts({1: 0, 2: 1, 3: 0})
    )
    assert vocabulary.encode(_column(1, 2, 3)).tolist() == [1, 2, 1]


def test_vocabulary_without_a_value() -> None:
    for value_type in (pa.int64(), pa.string()):
        counts = pa.table(
            {"value": pa.array([], value_type), "count": pa.array([], "int64")}
        )
        table = Table(
            name="t", value_type="int" if value_type == pa.int64() else "string"
        )
        vocabulary = Vocabulary.from_counts(table, counts)
        assert vocabulary.table.size == 2
        column = pa.chunked_array([pa.array([None], value_type)])
        assert vocabulary.encode(column).tolist() == [0]


def test_hashed_table_needs_no_counts() -> None:
    table = Table(name="t", kind="hashed", size=50)
    vocabulary = Vocabulary.from_counts(table, _counts({5: 1}))
    assert vocabulary.values is None
    assert vocabulary.table == table


def test_encodes_a_column_in_chunks() -> None:
    vocabulary = Vocabulary(Table(name="t"), [4, 6])
    column = pa.chunked_array([[6], [], [None, 4, 5]])
    assert vocabulary.encode(column).tolist() == [3, 0, 2, 1]


def test_encodes_an_empty_column() -> None:
    vocabulary = Vocabulary(Table(name="t"), [4])
    empty = pa.chunked_array([], type=pa.int64())
    assert vocabulary.encode(empty).shape == (0,)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (256, np.uint8),
        (257, np.uint16),
        (65536, np.uint16),
        (65537, np.int32),
    ],
)
def test_id_dtype_holds_the_largest_id(
    size: int, dtype: type[np.integer]
) -> None:
    assert id_dtype(size) is dtype
    assert np.iinfo(dtype).max >= size - 1


@pytest.mark.parametrize("value_type", [pa.int64(), pa.string()])
def test_hashed_ids_are_spread_and_reserve_two(
    value_type: pa.DataType,
) -> None:
    numbers = pa.array(np.arange(-5000, 5000) * 64)
    ids = hash_values(pa.chunked_array([numbers.cast(value_type)]), 12)
    assert ids.min() == 2
    assert ids.max() == 11
    counts = np.bincount(ids)[2:]
    assert counts.min() > 850
    assert counts.max() < 1150


def test_hashed_table_keeps_missing_apart() -> None:
    vocabulary = Vocabulary(Table(name="t", kind="hashed", size=1000))
    first = vocabulary.encode(_column(7, None, 123456789012))
    again = vocabulary.encode(_column(123456789012, 7, 0))
    assert first[1] == 0
    assert first[0] == again[1] >= 2
    assert first[2] == again[0] >= 2
    assert again[2] >= 2


def test_values_must_fit_the_table() -> None:
    with pytest.raises(ValueError, match="must be of type int"):
        Vocabulary(Table(name="t"), ["a"])
    with pytest.raises(ValueError, match="needs `values`"):
        Vocabulary(Table(name="t"))
    with pytest.raises(ValueError, match="no row to hash into"):
        Vocabulary(Table(name="t", kind="hashed", size=2))
