"""The listwise builder against a slow reference in plain Python."""

from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.preparation.listwise import (
    Listwise,
    RawShard,
    build_listwise,
)
from data_pipelines.preparation.scan import ROW
from data_pipelines.raw.raw_dataset import RawDataset
from sparsectr.errors import InputError
from tests.data_pipelines.small_dataset import (
    TYPES,
    Rows,
    arrow_table,
    raw_table,
    reference,
    small_dataset,
)


def _build(
    users: Rows, behaviors: Rows, impressions: Rows, **options: Any
) -> Listwise:
    rows = {"users": users, "behaviors": behaviors, "impressions": impressions}
    shard = {
        name: _with_row(arrow_table(TYPES[name], rows[name])) for name in TYPES
    }
    return build_listwise(
        small_dataset(rows, **options), RawShard(**shard, items=None)
    )


def _with_row(table: pa.Table) -> pa.Table:
    return table.append_column(ROW, pa.array(np.arange(len(table))))


def _check_against_reference(rows: dict[str, Rows], built: Listwise) -> None:
    expected = reference(rows)
    users = expected["users"]
    assert built.user_id.to_pylist() == users
    behaviors = built.behaviors.to_pylist()
    for row, user in enumerate(users):
        own = np.flatnonzero(built.behavior_user == row)
        assert [
            {"user_id": user, "time": built.behavior_time[n], **behaviors[n]}
            for n in own
        ] == expected["behaviors"][user]
    assert (np.diff(built.behavior_user) >= 0).all()
    first = np.searchsorted(built.behavior_user, np.arange(len(users)))
    requests = sorted(
        [*expected["requests"]["train"], *expected["requests"]["test"]],
        key=lambda r: (r["user"], r["time"], r["rows"][0]["request"]),
    )
    profiles = built.profiles.to_pylist()
    candidates = built.candidates.to_pylist()
    offset = built.candidate_offset
    assert len(built.request_user) == len(requests)
    assert offset[0] == 0
    assert offset[-1] == len(candidates)
    for row, request in enumerate(requests):
        user = int(built.request_user[row])
        assert users[user] == request["user"]
        assert built.request_time[row] == request["time"]
        assert built.history_end[row] - first[user] == len(request["past"])
        age = expected["profiles"].get(request["user"], {}).get("age")
        assert profiles[row] == {"user_id": request["user"], "age": age}
        assert candidates[offset[row] : offset[row + 1]] == [
            {name: r[name] for name in ("thing", "price", "label")}
            for r in request["rows"]
        ]


_user = st.integers(1, 4)
_time = st.integers(1, 9)
_item = st.none() | st.integers(0, 4)
_price = st.none() | st.sampled_from([-1.0, 0.5, 2.0, 64.0])
_impression = st.builds(
    # Two requests of one user can share a second, as in KuaiRand.
    lambda user, time, thing, price, label, part: (
        user,
        time,
        thing,
        price,
        label,
        2 * time + part,
    ),
    _user,
    _time,
    _item,
    _price,
    st.integers(0, 1),
    st.integers(0, 1),
)
small_rows = st.fixed_dictionaries(
    {
        "users": st.lists(
            st.tuples(st.integers(1, 6), st.none() | st.integers(0, 2)),
            unique_by=lambda row: row[0],
        ),
        "behaviors": st.lists(
            st.tuples(
                st.integers(0, 6),
                _time,
                _item,
                st.none() | st.sampled_from("ab"),
            ),
            max_size=30,
        ),
        "impressions": st.lists(_impression, max_size=20),
    }
)


@hypothesis.settings(max_examples=150)
@hypothesis.given(rows=small_rows)
def test_equals_the_slow_reference(rows: dict[str, Rows]) -> None:
    _check_against_reference(rows, _build(**rows))


def test_counts_what_is_left_out_or_incomplete() -> None:
    built = _build(
        users=[(1, 0), (8, 1), (9, 1)],
        behaviors=[(1, 1, 3, "a"), (7, 1, 3, "a"), (7, 2, 3, "a")],
        impressions=[(1, 2, 3, 1.0, 1, 2), (2, 6, 3, 1.0, 0, 6)],
    )
    assert built.dropped == {
        "behaviors of users without a request": 2,
        "profiles of users without a request": 2,
    }
    assert built.incomplete == {
        "users without a profile": 1,
        "users without a behavior": 1,
    }


def test_repeated_behaviors_are_dropped_and_counted() -> None:
    behaviors = [
        (1, 2, 3, "b"),
        (1, 1, 3, "a"),
        (1, 1, 4, "a"),
        (1, 1, 3, None),
        (1, 1, 3, "a"),
        (1, 1, None, "a"),
        (1, 1, 3, None),
        (2, 1, 3, "a"),  # another user
        (2, 2, 3, "a"),  # another second
        (7, 1, 3, "a"),
        (7, 1, 3, "a"),
    ]
    impressions = [(1, 2, 3, 1.0, 1, 2), (2, 6, 3, 1.0, 0, 6)]
    built = _build([], behaviors, impressions, unique_behaviors=True)
    assert built.dropped["repeated behaviors"] == 3
    assert built.dropped["behaviors of users without a request"] == 1
    assert built.behaviors.to_pylist() == [
        {"item": 3, "kind": "a"},
        {"item": 4, "kind": "a"},
        {"item": 3, "kind": None},
        {"item": None, "kind": "a"},
        {"item": 3, "kind": "b"},
        {"item": 3, "kind": "a"},
        {"item": 3, "kind": "a"},
    ]
    assert built.behavior_time.tolist() == [1, 1, 1, 1, 2, 1, 2]


def test_repeated_impressions_are_dropped_and_counted() -> None:
    impressions = [
        (1, 2, 3, 1.0, 1, 2),
        (1, 2, 3, 2.0, 0, 2),
        (1, 2, 4, 1.0, 1, 2),
        (2, 2, 3, 1.0, 1, 2),
    ]
    built = _build(
        [],
        [],
        impressions,
        unique_impressions=("user_id", "thing", "request"),
        nouns=("exposures", "a video"),
    )
    assert built.dropped["repeated exposures"] == 1
    # The first of them stays.
    assert built.candidates["price"].to_pylist() == [1.0, 1.0, 1.0]
    assert built.candidates["label"].to_pylist() == [1, 1, 1]


def test_many_behaviors_in_one_second_keep_their_order() -> None:
    num = 100_000
    item = np.random.default_rng(3).integers(0, 1000, num)
    behaviors = pa.table(
        {
            "user_id": np.where(np.arange(num + 1) < num, 1, 2),
            "time": np.full(num + 1, 4),
            "item": np.append(item, 5),
            "kind": pa.array(["a"] * (num + 1)),
        }
    )
    impressions = [(1, 4, 3, 1.0, 1, 0), (1, 5, 3, 1.0, 1, 1)]
    built = build_listwise(
        small_dataset({"users": [], "behaviors": [], "impressions": []}),
        RawShard(
            impressions=_with_row(
                arrow_table(TYPES["impressions"], impressions)
            ),
            behaviors=_with_row(behaviors),
            users=_with_row(arrow_table(TYPES["users"], [])),
            items=None,
        ),
    )
    np.testing.assert_array_equal(built.behaviors["item"].to_numpy(), item)
    assert built.history_end.tolist() == [0, num]


@pytest.mark.parametrize("time", [0, -1, 4_102_444_800, 1 << 40])
def test_times_that_are_none_are_refused(time: int) -> None:
    impressions = [(1, 1, 1, 1.0, 1, 1), (1, 9, 1, 1.0, 1, 9)]
    hint = " Milliseconds\\?" if time > 0 else ""
    message = rf"not in Unix seconds: {time}\.{hint}$"
    with pytest.raises(InputError, match=message):
        _build([], [(1, time, 1, "a")], impressions)
    with pytest.raises(InputError, match=message):
        _build([], [], [*impressions, (1, time, 1, 1.0, 1, 4)])


def test_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    rows: dict[str, Rows] = {"users": [], "behaviors": [], "impressions": []}

    def check(
        table: str, column: str, column_type: pa.DataType | None
    ) -> RawDataset:
        types = dict(TYPES[table])
        del types[column]
        if column_type is not None:
            types[column] = column_type
        other = raw_table(table, types, tmp_path / "other")
        return small_dataset(rows, tmp_path / "raw", **{table: other})

    small_dataset(rows, tmp_path / "raw").check()
    text = pa.string()
    for table, column, column_type, message in (
        ("users", "age", None, "`impressions` has no column 'age'"),
        ("users", "age", text, "'age' of `impressions` must be of type int64"),
        ("users", "user_id", text, "'user_id' is of type string in `users`"),
        ("users", "user_id", None, "`users` need a column 'user_id'"),
        ("behaviors", "kind", None, "`behaviors` has no column 'kind'"),
        ("behaviors", "kind", pa.int64(), "'kind' of `behaviors` must be"),
        ("behaviors", "user_id", text, "'user_id' of `behaviors` must be"),
        ("impressions", "price", pa.float64(), "'price' of `impressions`"),
        ("impressions", "request", None, "has no column 'request'"),
        ("impressions", "user_id", pa.float64(), "type int64 or string"),
    ):
        with pytest.raises(ValueError, match=message):
            check(table, column, column_type).check()
