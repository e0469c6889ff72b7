"""The listwise builder against a slow reference in plain Python."""

import collections
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.listwise import Listwise, build_listwise
from data_pipelines.raw_dataset import RawDataset
from sparsectr.errors import InputError
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

SCHEMA = DatasetSchema(
    name="small",
    tables=(
        Table(name="user_id", min_count=2),
        Table(name="age"),
        Table(name="item", min_count=2),
        Table(name="kind", value_type="string"),
    ),
    user_fields=(
        CategoricalField(name="user_id", table="user_id"),
        CategoricalField(name="age", table="age"),
    ),
    behavior_fields=(
        CategoricalField(name="item", table="item"),
        CategoricalField(name="kind", table="kind"),
    ),
    candidate_fields=(CategoricalField(name="thing", table="item"),),
    candidate_dense_fields=(DenseField(name="price", transform="log1p"),),
)
TEST_TIME = 5

_INT = pa.int64()
_TYPES = {
    "users": {"user_id": _INT, "age": _INT},
    "behaviors": {
        "user_id": _INT,
        "time": _INT,
        "item": _INT,
        "kind": pa.string(),
    },
    "impressions": {
        "user_id": _INT,
        "time": _INT,
        "thing": _INT,
        "price": pa.float32(),
        "label": _INT,
        "request": _INT,
    },
}


def _raw(
    users: list[tuple[Any, ...]],
    behaviors: list[tuple[Any, ...]],
    impressions: list[tuple[Any, ...]],
) -> RawDataset:
    def table(name: str, rows: list[tuple[Any, ...]]) -> pa.Table:
        types = _TYPES[name]
        columns = zip(*rows, strict=True) if rows else [()] * len(types)
        return pa.table(
            {
                key: pa.array(list(column), types[key])
                for key, column in zip(types, columns, strict=True)
            }
        )

    return RawDataset(
        schema=SCHEMA,
        users=table("users", users),
        behaviors=table("behaviors", behaviors),
        impressions=table("impressions", impressions),
        test_time=TEST_TIME,
        split="from 5 on",
        dropped={"other": 3},
        incomplete={},
        sources=(),
    )


def _reference(raw: RawDataset) -> dict[str, Any]:
    """Returns vocabularies, users and requests as plain Python values."""
    profiles = {row["user_id"]: row for row in raw.users.to_pylist()}
    impressions = raw.impressions.to_pylist()
    users = sorted({row["user_id"] for row in impressions})
    behaviors = {
        user: sorted(
            (b for b in raw.behaviors.to_pylist() if b["user_id"] == user),
            key=lambda b: b["time"],
        )
        for user in users
    }
    grouped: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in impressions:
        key = (row["user_id"], row["request"])
        grouped.setdefault(key, []).append(row)
    counts: dict[str, collections.Counter[Any]] = collections.defaultdict(
        collections.Counter
    )
    prices = []
    requests: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for (user, _), rows in sorted(grouped.items()):
        time = rows[0]["time"]
        past = [b for b in behaviors[user] if b["time"] < time]
        split = "train" if time < raw.test_time else "test"
        requests[split].append(
            {"user": user, "time": time, "past": past, "rows": rows}
        )
        if split == "train":
            counts["user_id"][user] += 1
            counts["age"][profiles.get(user, {}).get("age")] += 1
            for row in rows:
                counts["item"][row["thing"]] += 1
                if row["price"] is not None:
                    prices.append(math.log1p(max(row["price"], 0.0)))
    for user in users:
        for behavior in behaviors[user]:
            if behavior["time"] < raw.test_time:
                counts["item"][behavior["item"]] += 1
                counts["kind"][behavior["kind"]] += 1
    vocabularies = {}
    for table in raw.schema.tables:
        counter = counts[table.name]
        counter.pop(None, None)
        kept = [v for v, n in counter.items() if n >= table.min_count]
        kept.sort(key=lambda v, counter=counter: (-counter[v], v))
        vocabularies[table.name] = kept
    return {
        "users": users,
        "profiles": profiles,
        "behaviors": behaviors,
        "requests": requests,
        "vocabularies": vocabularies,
        "prices": prices,
    }


def _check_against_reference(raw: RawDataset, built: Listwise) -> None:
    expected = _reference(raw)
    shard = built.shard
    vocabularies = expected["vocabularies"]

    def ids(table: str, values: list[Any]) -> list[int]:
        place = {value: n for n, value in enumerate(vocabularies[table], 2)}
        return [0 if v is None else place.get(v, 1) for v in values]

    for vocabulary in built.vocabularies:
        assert vocabulary.values is not None
        name = vocabulary.table.name
        assert vocabulary.values.to_pylist() == vocabularies[name]
        assert built.schema.table(name).size == len(vocabularies[name]) + 2
    users = expected["users"]
    assert shard.user_id.tolist() == users
    assert shard.users["user_id"].tolist() == ids("user_id", users)
    ages = [expected["profiles"].get(user, {}).get("age") for user in users]
    assert shard.users["age"].tolist() == ids("age", ages)
    for row, user in enumerate(users):
        part = slice(*shard.behavior_offset[row : row + 2].tolist())
        past = expected["behaviors"][user]
        assert shard.behavior_time[part].tolist() == [b["time"] for b in past]
        for field, table in (("item", "item"), ("kind", "kind")):
            assert shard.behaviors[field][part].tolist() == ids(
                table, [b[field] for b in past]
            )
    for split, requests in expected["requests"].items():
        columns = shard.splits[split]
        assert columns.num_requests == len(requests)
        for row, request in enumerate(requests):
            user = int(columns.user[row])
            assert users[user] == request["user"]
            assert columns.time[row] == request["time"]
            start = shard.behavior_offset[user]
            assert columns.history_end[row] - start == len(request["past"])
            part = slice(*columns.candidate_offset[row : row + 2].tolist())
            rows = request["rows"]
            assert columns.candidates["thing"][part].tolist() == ids(
                "item", [r["thing"] for r in rows]
            )
            assert columns.label[part].tolist() == [r["label"] for r in rows]
            prices = [r["price"] for r in rows]
            np.testing.assert_array_equal(
                columns.candidates["price"][part],
                np.array([math.nan if p is None else p for p in prices], "f4"),
            )
    field = built.schema.candidate_dense_fields[0]
    prices = expected["prices"]
    assert field.mean == pytest.approx(np.mean(prices) if prices else 0.0)
    spread = np.std(prices) if prices else 0.0
    assert field.scale == pytest.approx(spread if spread > 1e-9 else 1.0)


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


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    users=st.lists(
        st.tuples(st.integers(1, 6), st.none() | st.integers(0, 2)),
        unique_by=lambda row: row[0],
    ),
    behaviors=st.lists(
        st.tuples(
            st.integers(0, 6), _time, _item, st.none() | st.sampled_from("ab")
        ),
        max_size=30,
    ),
    impressions=st.lists(_impression, min_size=1, max_size=20),
)
def test_equals_the_slow_reference(
    users: list[tuple[Any, ...]],
    behaviors: list[tuple[Any, ...]],
    impressions: list[tuple[Any, ...]],
) -> None:
    raw = _raw(users, behaviors, impressions)
    times = [row[1] for row in impressions]
    if min(times) >= TEST_TIME or max(times) < TEST_TIME:
        with pytest.raises(InputError, match=r"no (training|test) request"):
            build_listwise(raw)
    else:
        _check_against_reference(raw, build_listwise(raw))


def test_counts_what_is_left_out_or_incomplete() -> None:
    raw = _raw(
        users=[(1, 0), (8, 1), (9, 1)],
        behaviors=[(1, 1, 3, "a"), (7, 1, 3, "a"), (7, 2, 3, "a")],
        impressions=[(1, 2, 3, 1.0, 1, 2), (2, 6, 3, 1.0, 0, 6)],
    )
    built = build_listwise(raw)
    assert built.dropped == {
        "other": 3,
        "behaviors of users without a request": 2,
        "profiles of users without a request": 2,
    }
    assert built.incomplete == {
        "users without a profile": 1,
        "users without a behavior": 1,
    }


def test_test_period_teaches_no_vocabulary() -> None:
    raw = _raw(
        users=[(1, 0)],
        # Item 2 has one occurrence before the test time, and needs two.
        behaviors=[(1, 4, 2, "a"), (1, 5, 2, "b"), (1, 6, 2, "b")],
        impressions=[
            (1, 4, 3, 1.0, 1, 4),
            (1, 4, 3, 1.0, 1, 4),
            (1, 9, 2, 9e9, 1, 9),
        ],
    )
    built = build_listwise(raw)
    values = {
        v.table.name: v.values.to_pylist()
        for v in built.vocabularies
        if v.values is not None
    }
    assert values["item"] == [3]
    assert values["kind"] == ["a"]
    field = built.schema.candidate_dense_fields[0]
    assert field.mean == pytest.approx(math.log(2))
    assert field.scale == 1.0


def test_columns_of_another_type_are_refused() -> None:
    raw = _raw([], [], [(1, 1, 1, 1.0, 1, 1)])
    with pytest.raises(ValueError, match=r"`users` has no column 'age'"):
        RawDataset(**{**vars(raw), "users": raw.users.drop_columns("age")})
    wrong = raw.users.set_column(1, "age", pa.array([], pa.string()))
    with pytest.raises(ValueError, match="'age' of `users` must be of type"):
        RawDataset(**{**vars(raw), "users": wrong})
    late = _raw(
        [],
        [(1, 1 << 40, 1, "a")],
        [(1, 1, 1, 1.0, 1, 1), (1, 9, 1, 1.0, 1, 9)],
    )
    with pytest.raises(ValueError, match="not Unix seconds"):
        build_listwise(late)
