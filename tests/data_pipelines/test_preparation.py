"""One store, however it was made: shards, processes, parts."""

import dataclasses
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.raw.raw_dataset import RawDataset, earlier_impressions
from data_pipelines.raw.split_rule import LastFraction
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from tests.data_pipelines.leaks import check_histories
from tests.data_pipelines.same_store import said_of
from tests.data_pipelines.small_dataset import (
    SCHEMA,
    TYPES,
    Rows,
    drawn_rows,
    prepared,
    raw_table,
    reference,
    small_dataset,
)
from tests.data_pipelines.test_listwise import small_rows

_INT = pa.int64()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> RawDataset:
    folder = tmp_path_factory.mktemp("raw")
    return small_dataset(drawn_rows(23), folder, unique_behaviors=True)


@pytest.fixture(scope="module")
def whole(
    dataset: RawDataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a store says that was prepared at one go."""
    store = prepared(dataset, tmp_path_factory.mktemp("whole") / "store")
    assert check_histories(store) > 100
    verify_store(store.path)
    return said_of(store)


def _check_store(rows: dict[str, Rows], store: Store) -> None:
    expected = reference(rows)
    users = expected["users"]
    vocabularies = expected["vocabularies"]
    (shard,) = store.shards

    def ids(table: str, values: list[Any]) -> list[int]:
        place = {value: n for n, value in enumerate(vocabularies[table], 2)}
        return [0 if v is None else place.get(v, 1) for v in values]

    for name, values in vocabularies.items():
        found = store.vocabulary(name).values
        assert found is not None
        assert found.to_pylist() == values
        assert store.schema.table(name).size == len(values) + 2
    assert shard.user_id.tolist() == users
    for row, user in enumerate(users):
        part = slice(*shard.behavior_offset[row : row + 2].tolist())
        past = expected["behaviors"][user]
        assert shard.behavior_time[part].tolist() == [b["time"] for b in past]
        for name in ("item", "kind"):
            assert shard.behaviors[name][part].tolist() == ids(
                name, [b[name] for b in past]
            )
    for split, requests in expected["requests"].items():
        columns = shard.splits[split]
        assert columns.num_requests == len(requests)
        asking = [request["user"] for request in requests]
        assert [users[row] for row in columns.user] == asking
        assert columns.time.tolist() == [r["time"] for r in requests]
        assert columns.users["user_id"].tolist() == ids("user_id", asking)
        profiles = [expected["profiles"].get(user, {}) for user in asking]
        assert columns.users["age"].tolist() == ids(
            "age", [profile.get("age") for profile in profiles]
        )
        start = shard.behavior_offset[columns.user]
        assert (columns.history_end - start).tolist() == [
            len(request["past"]) for request in requests
        ]
        assert np.diff(columns.candidate_offset).tolist() == [
            len(request["rows"]) for request in requests
        ]
        shown = [row for request in requests for row in request["rows"]]
        assert columns.candidates["thing"].tolist() == ids(
            "item", [row["thing"] for row in shown]
        )
        assert columns.label.tolist() == [row["label"] for row in shown]
        prices = [row["price"] for row in shown]
        np.testing.assert_array_equal(
            columns.candidates["price"],
            np.array([np.nan if p is None else p for p in prices], "f4"),
        )
    field = store.schema.candidate_dense_fields[0]
    prices = expected["prices"]
    assert field.mean == pytest.approx(np.mean(prices) if prices else 0.0)
    spread = np.std(prices) if prices else 0.0
    assert field.scale == pytest.approx(spread if spread > 1e-9 else 1.0)


@hypothesis.settings(max_examples=25)
@hypothesis.given(rows=small_rows)
def test_equals_the_slow_reference(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Rows]
) -> None:
    folder = tmp_path_factory.mktemp("example")
    made = small_dataset(rows, folder / "raw")
    requests = reference(rows)["requests"]
    if requests["train"] and requests["test"]:
        _check_store(rows, prepared(made, folder / "store"))
    else:
        with pytest.raises(InputError, match=r"no (training|test) request"):
            prepared(made, folder / "store")
        assert [path.name for path in folder.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("num_shards", "num_workers", "range_bytes"),
    [(1, 1, 1), (2, 1, 1 << 30), (7, 2, 500), (60, 1, 1)],
)
def test_one_content(
    dataset: RawDataset,
    whole: dict[str, Any],
    tmp_path: Path,
    num_shards: int,
    num_workers: int,
    range_bytes: int,
) -> None:
    store = prepared(
        dataset,
        tmp_path / "store",
        num_shards=num_shards,
        num_workers=num_workers,
        range_bytes=range_bytes,
    )
    assert len(store.shards) == num_shards
    if num_shards == 60:
        assert not all(shard.num_users for shard in store.shards)
    assert said_of(store) == whole
    check_histories(store)
    verify_store(store.path)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_row_more_is_another_content(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    rows = drawn_rows(23)
    rows["behaviors"] = [*rows["behaviors"], (3, 9, 3, "c")]
    made = small_dataset(rows, tmp_path / "raw", unique_behaviors=True)
    said = said_of(prepared(made, tmp_path / "store"))
    assert said["content"] != whole["content"]
    assert said["schema"] == whole["schema"]


def test_test_period_teaches_no_vocabulary(tmp_path: Path) -> None:
    rows: dict[str, Rows] = {
        "users": [(1, 0)],
        # Item 2 has one occurrence before the test time, and needs two.
        "behaviors": [(1, 4, 2, "a"), (1, 5, 2, "b"), (1, 6, 2, "b")],
        "impressions": [
            (1, 4, 3, 1.0, 1, 4),
            (1, 4, 3, 1.0, 1, 4),
            (1, 9, 2, 9e9, 1, 9),
        ],
    }
    store = prepared(
        small_dataset(rows, tmp_path / "raw"), tmp_path / "store", num_shards=2
    )
    values = {
        table.name: store.vocabulary(table.name).values.to_pylist()
        for table in SCHEMA.tables
    }
    assert values == {"user_id": [], "age": [0], "item": [3], "kind": ["a"]}
    field = store.schema.candidate_dense_fields[0]
    assert field.mean == pytest.approx(np.log(2))
    assert field.scale == 1.0
    unknown = store.manifest["out_of_vocabulary"]
    assert unknown["behavior_item"] == {
        "rows": 3,
        "missing": 0,
        "out_of_vocabulary": 3,
    }
    assert unknown["behavior_kind"]["out_of_vocabulary"] == 2
    assert unknown["test candidate_thing"]["out_of_vocabulary"] == 1
    assert unknown["train candidate_thing"]["out_of_vocabulary"] == 0


def test_text_user_ids(tmp_path: Path) -> None:
    rows = drawn_rows(11)
    named = {
        name: [(f"ü-{'x' * user}", *rest) for user, *rest in table]
        for name, table in rows.items()
    }
    text = {n: {**t, "user_id": pa.string()} for n, t in TYPES.items()}
    schema = dataclasses.replace(
        SCHEMA,
        tables=(
            Table(name="user_id", min_count=2, value_type="string"),
            *SCHEMA.tables[1:],
        ),
    )
    made = small_dataset(named, tmp_path / "raw", text, schema=schema)
    numbered = small_dataset(rows, tmp_path / "numbered")
    expected = prepared(numbered, tmp_path / "expected").shards[0]
    contents = set()
    for num_shards in (1, 3, 40):
        store = prepared(
            made, tmp_path / f"{num_shards}", num_shards=num_shards
        )
        verify_store(store.path)
        check_histories(store)
        contents.add(store.manifest["content"])
        if num_shards == 1:
            (shard,) = store.shards
            assert [len(i.decode()) - 2 for i in shard.user_id] == list(
                expected.user_id
            )
            assert np.array_equal(shard.behavior_time, expected.behavior_time)
            for split, requests in shard.splits.items():
                other = expected.splits[split]
                assert np.array_equal(requests.user, other.user)
                assert np.array_equal(requests.history_end, other.history_end)
                for name, column in requests.candidates.items():
                    np.testing.assert_array_equal(
                        column, other.candidates[name]
                    )
        batches = Batches(store, "train", DataConfig(max_history=8), 4, 0)
        assert batches.batch(0)["behavior_time"].shape[0] == 4
    assert len(contents) == 1


def test_text_id_that_numpy_would_cut(tmp_path: Path) -> None:
    rows = {
        "users": [],
        "behaviors": [],
        "impressions": [("a\0", t, 1, 1.0, 1, t) for t in (1, 9)],
    }
    text = {n: {**t, "user_id": pa.string()} for n, t in TYPES.items()}
    schema = dataclasses.replace(
        SCHEMA, user_fields=(CategoricalField(name="age", table="age"),)
    )
    made = small_dataset(rows, tmp_path / "raw", text, schema=schema)
    with pytest.raises(InputError, match="ends in a NUL character"):
        prepared(made, tmp_path / "store")


_ITEMS = {"thing": _INT, "kind": pa.string()}


def _with_items(folder: Path, items: Rows, impressions: Rows) -> RawDataset:
    """Histories are earlier impressions; users and items have no profiles."""
    kind = CategoricalField(name="kind", table="kind")
    thing = CategoricalField(name="thing", table="item")
    schema = DatasetSchema(
        name="other",
        tables=SCHEMA.tables,  # one of which no field uses
        user_fields=(CategoricalField(name="age", table="age"),),
        behavior_fields=(thing, kind),
        candidate_fields=(thing, kind),
    )
    types = {
        "user_id": _INT,
        "time": _INT,
        "request": _INT,
        "label": _INT,
        "thing": _INT,
        "age": _INT,
    }
    return RawDataset(
        schema=schema,
        impressions=raw_table("impressions", types, folder, impressions),
        behaviors=earlier_impressions,
        items=raw_table("items", _ITEMS, folder, items),
        item_key="thing",
        split=LastFraction(fraction=0.5),
    )


_OWN_PROFILES: Rows = [
    # user, time, request, label, thing, age
    (1, 1, 1, 1, 7, 30),
    (1, 2, 2, 0, 7, 31),
    (1, 2, 2, 1, 8, 31),
    (2, 1, 1, 1, 8, None),
    (1, 3, 3, 0, 8, 32),
    (2, 4, 4, 0, 7, 31),
]


@pytest.mark.parametrize("num_shards", [1, 5])
def test_no_table_of_users_and_no_items(
    tmp_path: Path, num_shards: int
) -> None:
    made = _with_items(tmp_path / "raw", [], _OWN_PROFILES)
    store = prepared(made, tmp_path / "store", num_shards=num_shards)
    verify_store(store.path)
    assert check_histories(store) == 5
    assert store.manifest["split"]["test_time"] == 2
    ages = store.vocabulary("age").values
    assert ages is not None
    assert ages.to_pylist() == [30]
    assert sorted(
        (int(shard.user_id[u]), int(t), int(age))
        for shard in store.shards
        for requests in shard.splits.values()
        for u, t, age in zip(
            requests.user, requests.time, requests.users["age"], strict=True
        )
    ) == [(1, 1, 2), (1, 2, 1), (1, 3, 1), (2, 1, 0), (2, 4, 1)]
    kinds = store.manifest["out_of_vocabulary"]["train candidate_kind"]
    assert kinds == {"rows": 2, "missing": 2, "out_of_vocabulary": 0}
    assert store.manifest["incomplete"] == {
        "candidates of an item without features": 6,
        "users without a behavior": 0,
    }


def test_an_item_twice_is_refused(tmp_path: Path) -> None:
    items = [(n, "a") for n in range(9)] + [(4, "b")]
    made = _with_items(tmp_path / "raw", items, _OWN_PROFILES)
    with pytest.raises(
        InputError, match=r"items.parquet, row 10: repeated id. .*thing=4"
    ):
        prepared(made, tmp_path / "store", range_bytes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_hundred_thousand_behaviors_in_one_second(tmp_path: Path) -> None:
    num = 100_000
    items = np.random.default_rng(3).integers(0, 1000, num).tolist()
    behaviors = [(7, 4, item, "a") for item in items]
    # Those of another user stand between them.
    behaviors[num // 3 : num // 3] = [(8, 3, 5, "b")]
    rows: dict[str, Rows] = {
        "users": [(7, 1)],
        "behaviors": behaviors,
        "impressions": [
            (7, 4, 3, 1.0, 1, 0),
            (7, 5, 3, 1.0, 1, 1),
            (8, 6, 3, 1.0, 1, 1),
        ],
    }
    made = small_dataset(rows, tmp_path / "raw")
    store = prepared(made, tmp_path / "store", num_shards=2, range_bytes=50_000)
    verify_store(store.path)
    assert check_histories(store) == num + 1
    values = store.vocabulary("item").values
    assert values is not None
    places = {value: place for place, value in enumerate(values.to_pylist(), 2)}
    expected = [places.get(item, 1) for item in items]
    (shard,) = [s for s in store.shards if 7 in s.user_id]
    start = shard.behavior_offset[shard.user_id.tolist().index(7)]
    found = shard.behaviors["item"][start : start + num]
    assert found.tolist() == expected
