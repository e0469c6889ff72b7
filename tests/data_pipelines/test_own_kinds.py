"""Own tables with every kind of field and of file."""

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.own_shop import (
    NOW,
    TABLES,
    changed,
    make,
    refused,
    replaced,
)

SETS = {"x": ["a", "b"], "y": ["b", "c", "a", "d"], None: []}

KINDS = replaced(
    "[user_fields]",
    '[user_dense_fields]\nspend = { column = "users.spend" }\n'
    '[user_fields]\nlikes = { column = "users.likes", max_values = 2 }',
    "[behavior_fields]",
    '[behavior_dense_fields]\nseconds = "behaviors.seconds"\n'
    "[behavior_fields]\n"
    'tags = { column = "items.tags", max_values = 3 }',
    "[candidate_fields]",
    '[training_fields]\nplace = "impressions.place"\n'
    "[candidate_fields]\n"
    'tags = { column = "items.tags", max_values = 3, table = "tags" }',
    'label = "clicked"',
    'label = "clicked"\nweight = "weight"',
)

ALL = {
    "shown": {
        **TABLES["shown"],
        "place": [0, 1, 0, 1, 0, 0, 0, 0],
        "weight": [1.0, 1.0, 10.0, 1.0, 10.0, 1.0, 10.0, 1.0],
    },
    "events": {
        **TABLES["events"],
        "seconds": [1.5, None, 2.5, 1.0, 4.0, 1.0],
    },
    "people": {
        **TABLES["people"],
        "spend": [100.0, None, 2.0],
        "likes": [["a", None, "b"], None, []],
    },
    "things": {
        **TABLES["things"],
        "tags": [SETS["x"], SETS["y"], None, ["d"]],
    },
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make(tmp_path_factory.mktemp("kinds"), KINDS, ALL)


def test_every_kind_is_stored(store: Store) -> None:
    decoded = decode(store)
    first = decoded.requests[0]
    # Of the three likes the first two are kept, and a null says nothing.
    assert first.profile == {
        "likes": ["a"],
        "country": "AT",
        "device": "tv",
        "spend": 100.0,
    }
    assert first.history == [
        (
            NOW + 29,
            {"tags": ["a", "b"], "thing": 10, "brand": "x", "seconds": None},
        )
    ]
    assert [label for _, label in first.candidates] == [0, 1]
    unknown, known = (values for values, _ in first.candidates)
    assert (unknown["tags"], unknown["place"], unknown["weight"]) == ([], 0, 10)
    assert (known["tags"], known["place"]) == (["a", "b"], 1)
    longest = [c for r in decoded.requests for c, _ in r.candidates]
    assert ["b", "c", "a"] in [values["tags"] for values in longest]
    incomplete = store.manifest["incomplete"]
    # Once for each request of that user.
    assert incomplete["sets of user_likes that were cut"] == 4
    assert incomplete["nulls in sets of user_likes"] == 4
    assert incomplete["sets of candidate_tags that were cut"] == 1
    assert store.longest_sets == {
        "user_likes": 1,
        "behavior_tags": 2,
        "candidate_tags": 3,
    }


def test_numbers_are_scaled_by_the_training_period(store: Store) -> None:
    (seconds,) = store.schema.behavior_dense_fields
    # Of the users that were shown something: 1.5, 2.5 and 4.
    assert seconds.mean == pytest.approx(8 / 3)
    (spend,) = store.schema.user_dense_fields
    assert (spend.mean, spend.scale) == (100.0, 1.0)


def test_a_batch_has_them(store: Store) -> None:
    config = DataConfig(max_history=4, length_buckets=(), candidate_buckets=())
    batches = Batches(store, "train", config, 8, None)
    batch = batches.batch(0)
    assert batch["behavior_tags"].shape[2] == 2
    assert batch["candidate_tags"].shape[2] == 3
    is_set = batch["candidate_tags"].max(axis=2) > 0
    assert not is_set[~batch["candidate_mask"]].any()
    weight = batch["candidate_weight"]
    assert set(weight[batch["candidate_mask"]]) == {1.0, 10.0}
    known = batches.labels(0, batch["label"].shape[1])
    assert known.weight is not None
    weight = weight[: len(known.mask)]
    np.testing.assert_array_equal(known.weight, weight[known.mask])


def test_histories_as_lists_are_the_same_store(
    store: Store, tmp_path: pathlib.Path
) -> None:
    events = pd.DataFrame(ALL["events"]).dropna(subset="who")
    lists = events.astype({"who": int}).groupby("who").agg(list)
    tables: Any = {**ALL, "events": lists.reset_index().to_dict("list")}
    of_lists = make(tmp_path, KINDS, tables)
    assert of_lists.manifest["content"] == store.manifest["content"]


def test_text_files_are_the_same_store(
    store: Store, tmp_path: pathlib.Path
) -> None:
    schema = KINDS
    for name in TABLES:
        schema = schema.replace(f"{name}.parquet", f"{name}.csv")
    schema = schema.replace("max_values =", 'separator = "|", max_values =')
    schema += '[tables.thing]\ntype = "int"\n[tables.place]\ntype = "int"\n'
    tables = {name: pd.DataFrame(columns) for name, columns in ALL.items()}
    tables["events"]["at"] = pd.to_datetime(tables["events"]["at"], unit="s")
    for table, column, most in (("people", "likes", 2), ("things", "tags", 3)):
        # A null counts in a list, and an empty part of a text does not.
        tables[table][column] = [
            "|".join(v for v in (values or ())[:most] if v)
            for values in ALL[table][column]
        ]
    raw_dir = tmp_path / "raw-store"
    raw_dir.mkdir()
    for name, frame in tables.items():
        for key in ("who", "sku"):  # as if a null had made no float of them
            if key in frame:
                frame[key] = frame[key].astype("Int64")
        frame.to_csv(raw_dir / f"{name}.csv", index=False)
    of_text = decode(make(tmp_path, schema, {}))
    expected = decode(store)
    assert of_text.vocabularies == expected.vocabularies
    for found, wanted in zip(of_text.requests, expected.requests, strict=True):
        assert found.user_id == str(wanted.user_id)
        assert (found.time, found.profile, found.history, found.candidates) == (
            (wanted.time, wanted.profile, wanted.history, wanted.candidates)
        )


def _with(table: str, **columns: Any) -> Any:
    return {**ALL, table: {**ALL[table], **columns}}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            _with("shown", weight=[1.0, 0.0, *[1.0] * 6]),
            "shown.parquet, row 2: the weight `weight` is above 0. Received: "
            "weight=0.0",
        ),
        (
            _with("shown", weight=[None, *[1.0] * 7]),
            "row 1: the weight `weight` is above 0. Received: weight=None",
        ),
        (
            _with("events", seconds=[1.0, float("inf"), *[1.0] * 4]),
            "events.parquet, row 2: `seconds` is not a finite number of 32",
        ),
        (
            _with("people", spend=["much", "little", "none"]),
            "user_dense_fields.spend: column 'spend'",
        ),
        (
            _with("things", tags=["a", "b", "c", "d"]),
            "behavior_fields.tags: column 'tags' is no list of values; say "
            "that it is none, without `max_values`",
        ),
        (
            _with("events", sku=[[12], [10], [98], [10], [13], [10]]),
            "behaviors: column 'sku' is a list: one row a user has lists of "
            "equal length for its behaviors, `time` among them",
        ),
    ],
)
def test_bad_values(tmp_path: pathlib.Path, tables: Any, message: str) -> None:
    assert message in refused(tmp_path, KINDS, tables)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'weight = "weight"',
            'weight = "weight"\nnegative_rate = 0.5',
            "Weights undo a sampling of negatives, and so does",
        ),
        (
            'weight = "weight"',
            "negative_rate = 1.5",
            "`negative_rate` must be above 0 and at most 1",
        ),
        (
            'place = "impressions.place"',
            'place = "impressions.clicked"',
            "training_fields.place: the column 'clicked' is the label",
        ),
        (
            'place = "impressions.place"',
            'place = "items.brand"',
            "where TABLE is impressions",
        ),
        (
            'place = "impressions.place"',
            'place = { column = "impressions.place", table = "thing" }',
            "What only a log has shares no table with what is served. Shared: "
            "thing",
        ),
        (
            "max_values = 2",
            "max_values = 0",
            "user_fields.likes: `max_values` must be at least 1",
        ),
        (
            'likes = { column = "users.likes", max_values = 2 }',
            'likes = { column = "users.likes", separator = "|" }',
            "user_fields.likes: a `separator` makes a set: give `max_values`",
        ),
        (
            "max_values = 2",
            'max_values = 2, separator = "|"',
            "user_fields.likes: column 'likes' is a list of values: it needs "
            "no `separator`",
        ),
        (
            'spend = { column = "users.spend" }',
            'weight = { column = "users.spend" }',
            "user_dense_fields.weight: no field can be called 'weight'",
        ),
    ],
)
def test_bad_schema_files(
    tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    assert old in KINDS
    assert message in refused(tmp_path, KINDS.replace(old, new), ALL)


def test_files_of_two_kinds(tmp_path: pathlib.Path) -> None:
    schema = replaced('files = "shown.parquet"', 'files = "shown*"')
    raw_dir = tmp_path / "raw-store"
    raw_dir.mkdir()
    (raw_dir / "shown-2.csv").write_text("view,who\n")
    message = refused(tmp_path, schema, changed("shown"))
    assert "all files of a section must be of one kind" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'weight = "weight"',
            'weight = "wieght"',
            "impressions.weight: ",
        ),
        # It tells clicks from the rest as well as the label does.
        (
            "[candidate_dense_fields]",
            '[candidate_dense_fields]\nw = "impressions.weight"',
            "candidate_dense_fields.w: the column 'weight' is the weight of "
            "[impressions], the answer itself",
        ),
    ],
)
def test_bad_weight_columns(
    tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    assert message in refused(tmp_path, KINDS.replace(old, new), ALL)


@pytest.mark.parametrize(
    ("times", "line"),
    [
        (["2020-09-13 12:26:30", "13.09.2020 12:26"], 3),
        (["2020-09-13 12:26:30", "2020-09-13T12:26:30+01:00"], 3),
        (["soon", "2020-09-13 12:26:30"], 2),
        (["1600000000", "2020-09-13 12:26:30"], 3),
    ],
)
def test_the_one_bad_time_of_a_text_file_is_named(
    tmp_path: pathlib.Path, times: list[str], line: int
) -> None:
    schema = replaced("events.parquet", "events.csv")
    raw_dir = tmp_path / "raw-store"
    raw_dir.mkdir()
    events = pd.DataFrame({"who": ["1", "1"], "at": times, "sku": ["10", "11"]})
    events.to_csv(raw_dir / "events.csv", index=False)
    tables = {name: t for name, t in TABLES.items() if name != "events"}
    tables = {
        name: {
            key: [None if v is None else str(v) for v in column]
            if key in ("who", "id", "sku")
            else column
            for key, column in table.items()
        }
        for name, table in tables.items()
    }
    message = refused(tmp_path, schema, tables)
    assert f"events.csv, line {line}: `at` is neither whole numbers" in message
    assert f"at={times[line - 2]!r}" in message


def test_blanks_and_empty_parts_are_no_values(tmp_path: pathlib.Path) -> None:
    schema = KINDS.replace(
        'likes = { column = "users.likes", max_values = 2 }',
        'likes = { column = "users.likes", max_values = 2, separator = "|" }',
    )
    store = make(tmp_path, schema, _with("people", likes=["|a || b", "", None]))
    assert decode(store).requests[0].profile["likes"] == ["a", "b"]
    assert store.manifest["incomplete"]["nulls in sets of user_likes"] == 0
