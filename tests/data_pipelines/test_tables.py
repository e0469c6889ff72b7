import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.preparation.tables import (
    drop_duplicates,
    is_first,
    look_up,
    stable_order,
)

_minor = st.integers(-3, 3) | st.sampled_from([-(1 << 63), (1 << 63) - 1])
_major = st.integers(0, 3) | st.just(1 << 40)


@hypothesis.given(rows=st.lists(st.tuples(_major, _minor), max_size=40))
def test_stable_order(rows: list[tuple[int, int]]) -> None:
    major, minor = np.array(rows, np.int64).reshape(-1, 2).T
    expected = sorted(range(len(rows)), key=lambda n: (*rows[n], n))
    assert stable_order(major, minor).tolist() == expected


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_stable_order_at_the_limit_of_one_integer(dtype: type) -> None:
    # Three bits of places, and what is left for one column or the other.
    for major_bits in (0, 20, 30):
        for minor_bits in (59 - major_bits, 60 - major_bits, 61 - major_bits):
            major = np.array([0, (1 << major_bits) - 1] * 4, dtype)
            minor = np.array([(1 << minor_bits) - 1, 0, 7, 7] * 2, np.int64)
            expected = np.lexsort((minor, major))
            found = stable_order(major, minor)
            assert found.tolist() == expected.tolist()


_value = st.none() | st.integers(-1, 2) | st.just((1 << 53) + 1)
_text = st.none() | st.sampled_from(["", "a", "b"])
_price = st.none() | st.sampled_from([0.0, 1.5])


@hypothesis.given(
    rows=st.lists(st.tuples(_value, _text, _price), max_size=30),
    place=st.integers(0, 30),
)
def test_first_of_equals(rows: list[tuple[object, ...]], place: int) -> None:
    types = (pa.int64(), pa.string(), pa.float32())
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pa.table(
        {
            name: pa.chunked_array([values[:place], values[place:]], kind)
            for name, values, kind in zip("abc", columns, types, strict=True)
        }
    )
    expected = [row not in rows[:n] for n, row in enumerate(rows)]
    assert is_first(table).tolist() == expected
    kept, num_dropped = drop_duplicates(table, ["a", "b", "c"])
    assert kept == table.filter(pa.array(expected, pa.bool_()))
    assert num_dropped == expected.count(False)


def test_large_integers_beside_a_null_stay_apart() -> None:
    large = 1 << 53
    table = pa.table({"a": pa.array([large, large + 1, None], pa.int64())})
    assert is_first(table).tolist() == [True, True, True]


def test_duplicates_in_some_columns() -> None:
    table = pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"]})
    kept, num_dropped = drop_duplicates(table, ["a"])
    assert kept.to_pydict() == {"a": [1, 2], "b": ["x", "x"]}
    assert num_dropped == 1


def test_look_up() -> None:
    table = pa.table({"id": pa.array([3, None, 1, 9, 3]), "n": range(5)})
    features = pa.table({"id": [1, 2, 3], "name": pa.array(["a", "b", None])})
    found, num_absent = look_up(table, "id", features)
    assert found.to_pydict() == {
        "id": [3, None, 1, 9, 3],
        "n": [0, 1, 2, 3, 4],
        "name": [None, None, "a", None, None],
    }
    assert num_absent == 2
    found, num_absent = look_up(table, "id", features.slice(0, 0))
    assert found["name"].to_pylist() == [None] * 5
    assert num_absent == 5
    found, num_absent = look_up(table.slice(0, 0), "id", features)
    assert found.column_names == ["id", "n", "name"]
    assert num_absent == 0
