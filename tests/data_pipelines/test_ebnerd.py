"""EB-NeRD, on made files in the published types."""

import datetime
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.prepare import RANGE_BYTES, Options, prepare
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines import ebnerd_files, leaks
from tests.data_pipelines.check_store import check_store
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.ebnerd_files import (
    DAY,
    FIRST,
    HOUR,
    WEEK,
    Rows,
    article,
    history,
    impression,
)
from tests.data_pipelines.reference_ebnerd import expected_store

TRAIN: dict[str, Rows] = {
    "train/behaviors": [
        impression(7, 1, FIRST + HOUR, [10, 11, 12], [11]),
        impression(5, 1, FIRST + 2 * HOUR, [13, 10], [13, 10], article_id=11),
        impression(8, 2, FIRST + 6 * DAY, [10, 13], [], gender=1),
    ],
    "train/history": [
        history(1, (FIRST - DAY, 10, 17.0, 100.0), (FIRST - 5, 12, 3.0, None)),
        history(2),
    ],
}
BOTH: dict[str, Rows] = {
    **TRAIN,
    "validation/behaviors": [
        impression(9, 1, FIRST + WEEK, [14, 11], [14]),
    ],
    "validation/history": [
        history(
            1,
            (FIRST - 5, 12, 3.0, None),
            (FIRST + HOUR + 2, 11, 60.0, 50.0),
        ),
    ],
}
ARTICLES = [
    article(10, 5, [1, 2], "article_default", True),
    article(11, 6, None, "article_live", False),
    article(12, 5, [2, 3, 4, 5, 6], None, None),
]


def _prepare(folder: Path, files: Mapping[str, Rows], **options: Any) -> Store:
    raw_dir = ebnerd_files.write(folder / "raw", files)
    return prepare(
        "ebnerd", raw_dir, folder / "store", options=Options(**options)
    )


@given(
    st.sampled_from(
        [
            (folders, has_articles)
            for folders in (
                ("train",),
                ("validation",),
                ("train", "validation"),
            )
            for has_articles in (False, True)
        ]
    ),
    st.data(),
)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_store_holds_what_the_files_say(
    kind: tuple[tuple[str, ...], bool], data: st.DataObject
) -> None:
    files = data.draw(ebnerd_files.raw_files(*kind))
    with tempfile.TemporaryDirectory() as name:
        raw_dir = ebnerd_files.write(Path(name) / "raw", files)
        expected = expected_store(raw_dir)
        stores = [
            prepare(
                "ebnerd",
                raw_dir,
                Path(name) / f"store {number}",
                num_shards=number,
                num_workers=1,
                range_bytes=RANGE_BYTES if number == 1 else 100,
            )
            for number in (1, 3)
        ]
        for store in stores:
            check_store(store, expected)
        assert stores[0].manifest["content"] == stores[1].manifest["content"]
        assert "no history reaches its request" in verify_store(stores[0].path)


def test_labels_and_histories(tmp_path: Path) -> None:
    store = _prepare(tmp_path, TRAIN)
    first, second, other = decode(store).requests
    assert [label for _, label in first.candidates] == [0, 1, 0]
    # Both were clicked.
    assert [label for _, label in second.candidates] == [1, 1]
    assert [label for _, label in other.candidates] == [0, 0]
    assert [r.split for r in (first, second, other)] == [
        *("train", "train", "test")
    ]
    assert [time for time, _ in first.history] == [FIRST - DAY, FIRST - 5]
    assert first.history[0][1]["read_time"] == 17
    # How long a click was read is not known; it is there all the same.
    assert second.history[2] == (
        FIRST + HOUR,
        {"article": 11, "read_time": None, "scroll_percentage": None},
    )
    assert second.profile["page"] == 11
    assert first.profile["page"] is None
    assert (first.profile["gender"], first.profile["is_subscriber"]) == (
        None,
        1,
    )
    assert store.manifest["split"]["rule"] == "from 2023-05-24 07:00 UTC on"
    assert leaks.check_histories(store) == 5


def test_a_reader_of_both_folders_is_two_users(tmp_path: Path) -> None:
    store = _prepare(tmp_path, BOTH)
    requests = decode(store).requests
    (last,) = [r for r in requests if r.split == "test"]
    assert (last.user_id, last.time) == (2**32 + 1, FIRST + WEEK)
    assert requests[0].user_id == 1
    # Seen twice in training, under whatever name.
    assert last.profile["reader_id"] == requests[0].profile["reader_id"] == 1
    # What its own folder says of the weeks before, and nothing twice.
    assert [(t - FIRST, v["read_time"]) for t, v in last.history] == [
        *((-5, 3.0), (HOUR + 2, 60.0))
    ]
    second = requests[1].history
    assert [time - FIRST for time, _ in second] == [-DAY, -5, HOUR]
    assert store.manifest["dropped"]["repeated behaviors"] == 0
    assert store.manifest["split"]["rule"] == "from 2023-05-25 07:00 UTC on"


def test_second_folder_alone_keeps_its_history(tmp_path: Path) -> None:
    files = {k: v for k, v in BOTH.items() if k.startswith("validation")}
    later = impression(10, 1, FIRST + WEEK + 6 * DAY, [11], [11])
    files["validation/behaviors"] = [*files["validation/behaviors"], later]
    store = _prepare(tmp_path, files)
    first, last = decode(store).requests
    assert [time - FIRST for time, _ in first.history] == [-5, HOUR + 2]
    assert (first.split, last.split) == ("train", "test")


def test_articles(tmp_path: Path) -> None:
    store = _prepare(tmp_path, {**TRAIN, "articles": ARTICLES})
    first = decode(store).requests[0]
    # Seen once in training: category 6 and some subcategories.
    assert [values for values, _ in first.candidates] == [
        {
            "article": 10,
            "category": 5,
            "article_type": "article_default",
            "premium": 1,
            "subcategory": [1, 2],
        },
        {
            "article": 11,
            "category": 6,
            "article_type": "article_live",
            "premium": 0,
            "subcategory": [],
        },
        {
            "article": 12,
            "category": 5,
            "article_type": None,
            "premium": None,
            "subcategory": [2, 3, 4, 5],
        },
    ]


def test_statistics(tmp_path: Path) -> None:
    store = _prepare(tmp_path, TRAIN, statistics=True)
    second = decode(store).requests[1]
    values = [v for v, _ in second.candidates]
    # Article 13 is new, and 10 was shown an hour before and passed over.
    assert [v["user_article_impressions_all"] for v in values] == [0, 1]
    assert [v["article_clicks_all"] for v in values] == [0, 0]


def test_chosen_test_day(tmp_path: Path) -> None:
    day = datetime.date(2023, 5, 24)
    store = _prepare(tmp_path / "a", BOTH, test_start=day)
    assert store.manifest["counts"]["test"]["requests"] == 2
    day = datetime.date(2023, 5, 18)
    with pytest.raises(InputError, match="no training request"):
        _prepare(tmp_path / "b", BOTH, test_start=day)


def _changed(name: str, **values: Any) -> dict[str, Rows]:
    """Returns the files with other values in the second row of one."""
    rows = [dict(row) for row in BOTH[name]]
    rows[-1] |= values
    return {**BOTH, name: rows}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "train/behaviors",
            {"impression_time": None},
            "row 3: `impression_time` is missing",
        ),
        ("train/behaviors", {"user_id": None}, "row 3: `user_id` is missing"),
        (
            "validation/behaviors",
            {"user_id": -1},
            "row 1: `user_id` is no id from 0 to 2^32. Received: user_id=-1",
        ),
        (
            "train/behaviors",
            {"article_ids_inview": [10, None]},
            "row 3: `article_ids_inview` has an entry that is no id",
        ),
        (
            "train/behaviors",
            {"article_ids_clicked": [-1]},
            "row 3: `article_ids_clicked` has an entry that is no id",
        ),
        (
            "train/behaviors",
            {"impression_time": datetime.datetime(1970, 1, 1)},
            "row 3: `impression_time` is not a time from 1970 to 2100",
        ),
        (
            "validation/history",
            {"read_time_fixed": [1.0]},
            "row 1: the lists `article_id_fixed` and `read_time_fixed` differ",
        ),
        (
            "validation/history",
            {"impression_time_fixed": [None, None]},
            "row 1: `impression_time_fixed` is missing",
        ),
        (
            "validation/history",
            {"scroll_percentage_fixed": [1.0, float("inf")]},
            "row 1: `scroll_percentage_fixed` is not a finite number of 32",
        ),
    ],
)
def test_bad_value(
    tmp_path: Path, name: str, values: dict[str, Any], message: str
) -> None:
    files = _changed(name, **values)
    ebnerd_files.write(tmp_path / "raw", files, {"user_id": pa.int64()})
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare("ebnerd", tmp_path / "raw", tmp_path / "store")
    path = tmp_path / "raw" / f"{name}.parquet"
    assert str(caught.value).startswith(f"{path}, row ")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("name", "column", "kind", "words"),
    [
        ("train/behaviors", "impression_time", pa.int64(), "timestamps"),
        ("train/behaviors", "article_ids_inview", pa.int32(), "lists of ids"),
        (
            "train/behaviors",
            "article_ids_clicked",
            pa.list_(pa.string()),
            "lists of ids",
        ),
        (
            "train/history",
            "impression_time_fixed",
            pa.list_(pa.int64()),
            "lists of timestamps",
        ),
        ("train/history", "read_time_fixed", pa.float32(), "lists of numbers"),
        ("articles", "subcategory", pa.string(), "lists of ids"),
        ("articles", "category", pa.string(), "int64"),
    ],
)
def test_column_of_another_type(
    tmp_path: Path, name: str, column: str, kind: pa.DataType, words: str
) -> None:
    raw_dir = ebnerd_files.write(
        tmp_path / "raw", {**TRAIN, "articles": ARTICLES}
    )
    path = raw_dir / f"{name}.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    other = pa.nulls(len(table), kind)
    pq.write_table(table.set_column(place, column, other), path)
    with pytest.raises(InputError) as caught:
        prepare("ebnerd", raw_dir, tmp_path / "store")
    # Parquet has a name of its own for what is in a list.
    message = str(caught.value).replace("<element: ", "<item: ")
    assert message == (
        f"{path}: column {column!r} of type {kind} cannot be read as {words}."
    )


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder train nor valid"):
        prepare("ebnerd", tmp_path / "none", tmp_path / "store")
    for name in TRAIN:
        raw_dir = ebnerd_files.write(tmp_path / name.split("/")[1], TRAIN)
        path = raw_dir / f"{name}.parquet"
        path.unlink()
        message = f"{path.parent} has no file {path.name}."
        with pytest.raises(InputError, match=re.escape(message)):
            prepare("ebnerd", raw_dir, tmp_path / "store")


def test_real_demo(shared_data: Path, tmp_path: Path) -> None:
    raw_dir = shared_data / "ebnerd_demo"
    if not raw_dir.is_dir():
        pytest.skip("no real data: there is no shared/data/ebnerd_demo")
    (tmp_path / "raw").mkdir()
    # The first week alone, whatever is there.
    (tmp_path / "raw" / "train").symlink_to(raw_dir / "train")
    store = prepare("ebnerd", tmp_path / "raw", tmp_path / "store")
    counts = store.manifest["counts"]
    parts = [counts[part] for part in ("train", "test")]
    assert sum(part["requests"] for part in parts) == 24_724
    assert sum(part["candidates"] for part in parts) == 278_139
    leaks.check_histories(store)
    (shard,) = store.shards
    table = pq.read_table(raw_dir / "train" / "history.parquet")
    reading = table.to_pandas().set_index("user_id").read_time_fixed
    for user in range(0, shard.num_users, 100):
        begin, end = shard.behavior_offset[user : user + 2]
        found = shard.behaviors["read_time"][begin:end]
        found = np.sort(found[~np.isnan(found)])
        expected = np.sort(reading[shard.user_id[user]])
        assert set(found) <= set(expected)
