import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_pipelines.raw.raw_rows import RawRows
from sparsectr.errors import InputError


@pytest.fixture
def rows() -> RawRows:
    table = pa.table({"id": [3, None, 1, 4], "name": ["a", "b\n", None, "d"]})
    return RawRows(table, 100, lambda row: f"file, line {row}")


def test_numbers_of_rows(rows: RawRows) -> None:
    assert rows.row.tolist() == [100, 101, 102, 103]
    assert rows.num_read == 4
    assert rows.dropped == {}


def test_require_names_the_first_wrong_row(rows: RawRows) -> None:
    rows.require(pc.is_valid(pa.chunked_array([[1, 2, 3, 4]])), "never")
    message = "file, line 102: too small. Received: id=1, name=None"
    with pytest.raises(InputError, match=re.escape(message)):
        rows.require(
            np.array([True, True, False, False]),
            "too small",
            "id",
            "name",
        )
    with pytest.raises(InputError, match=r"^file, line 100: wrong\.$"):
        rows.require(np.zeros(4, bool), "wrong")


def test_null_is_not_valid(rows: RawRows) -> None:
    with pytest.raises(InputError, match="line 101: wrong") as caught:
        rows.require(pc.greater(rows.table["id"], 0), "wrong", "name")
    assert len(str(caught.value).splitlines()) == 1


def test_dropped_rows_leave_the_others_their_numbers(rows: RawRows) -> None:
    rows.drop_unless(pc.greater(rows.table["id"], 1), "small")
    assert rows.table["id"].to_pylist() == [3, 4]
    assert rows.row.tolist() == [100, 103]
    assert rows.num_read == 4
    with pytest.raises(InputError, match="line 103: too large"):
        rows.require(pc.less(rows.table["id"], 4), "too large")
    rows.drop_unless(np.array([True, False]), "small")
    rows.drop_unless(np.array([True]), "other")
    assert rows.dropped == {"small": 3, "other": 0}
    assert rows.row.tolist() == [100]


def test_all_rows_dropped(rows: RawRows) -> None:
    rows.drop_unless(np.zeros(4, bool), "all")
    rows.drop_unless(pc.is_valid(rows.table["id"]), "none")
    rows.require(pc.is_valid(rows.table["id"]), "never")
    assert rows.dropped == {"all": 4, "none": 0}
    assert len(rows.table) == len(rows.row) == 0
