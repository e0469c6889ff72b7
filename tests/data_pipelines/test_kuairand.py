import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_pipelines.datasets.kuairand import SCHEMA
from data_pipelines.prepare import Options, prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.data_pipelines import leaks, raw_files
from tests.data_pipelines.raw_files import KUAIRAND

LOG = "log_standard_4_22_to_5_08_pure.csv"


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return raw_files.write(tmp_path / "raw", KUAIRAND)


@pytest.fixture
def store(raw_dir: Path, tmp_path: Path) -> Store:
    return prepare("kuairand", raw_dir, tmp_path / "store")


@pytest.fixture(scope="module")
def real_dir(shared_data: Path) -> Path:
    return shared_data / "kuairand_pure"


@pytest.fixture(scope="module")
def real_store(real_dir: Path, tmp_path_factory: Any) -> Store:
    folder = tmp_path_factory.mktemp("kuairand")
    return prepare("kuairand", real_dir, folder / "store")


def _raw(store: Store, table: str, ids: Any) -> list[Any]:
    values = store.vocabulary(table).values
    assert values is not None
    raw = [None, "rare", *values.to_pylist()]
    return [raw[i] for i in ids]


def test_last_day_is_the_test(store: Store) -> None:
    train, test = (store.shards[0].splits[s] for s in ("train", "test"))
    assert store.manifest["split"] == {
        "rule": "from 2022-04-30 on (UTC+8) for test",
        "test_time": 1651248000,
        "validation_rule": (
            "first 90% of all requests before the test by time for training"
        ),
        "validation_time": 1651247999,
    }
    assert test.time.tolist() == [1651248000]
    # Milliseconds make requests, and are cut off to make seconds.
    assert train.user.tolist() == [0, 0, 0, 1]
    assert train.time.tolist() == [
        *(1651240000, 1651240000, 1651247999, 1651241000)
    ]
    assert train.candidate_offset.tolist() == [0, 1, 2, 3, 5]
    assert train.label.tolist() == [1, 0, 1, 1, 0]


def test_history_is_before_the_second(store: Store) -> None:
    shard = store.shards[0]
    assert shard.splits["train"].history_end.tolist() == [0, 0, 2, 4]
    assert shard.splits["test"].history_end.tolist() == [3]
    assert _raw(store, "feedback", shard.behaviors["feedback"]) == [
        *(5, 0, 3, 0, 3, 0)
    ]
    assert store.manifest["dropped"]["repeated exposures"] == 1
    assert leaks.check_histories(store) == 5


def test_history_is_in_the_order_of_milliseconds(
    raw_dir: Path, tmp_path: Path
) -> None:
    path = raw_dir / LOG
    header, *rows = path.read_text().splitlines(keepends=True)
    assert ",1651240000900," in rows[3]
    path.write_text(header + rows.pop(3) + "".join(rows))
    shard = prepare("kuairand", raw_dir, tmp_path / "store").shards[0]
    # Of 100 and 900 milliseconds after the same second.
    assert shard.behavior_time[:2].tolist() == [1651240000] * 2
    store = Store(tmp_path / "store")
    assert _raw(store, "feedback", shard.behaviors["feedback"])[:2] == [5, 0]


def test_features(store: Store) -> None:
    shard = store.shards[0]
    candidates = shard.splits["train"].candidates
    assert _raw(store, "tag", candidates["tag"]) == [
        *("39,68", None, "39,68", None, "39,68")
    ]
    np.testing.assert_array_equal(
        candidates["video_duration"],
        np.array([5000, np.nan, 5000, np.nan, 5000], "f4"),
    )
    tags = candidates["tags"]
    assert tags.counts.tolist() == [2, 0, 2, 0, 2]
    assert _raw(store, "tags", tags.values[:2]) == [39, 68]
    # Three requests of the first user and one of the second.
    users = shard.splits["train"].users
    assert _raw(store, "fans_user_num_range", users["fans_user_num_range"]) == [
        *["[100,1k)"] * 3,
        None,
    ]
    assert users["onehot_feat4"].tolist() == [0, 0, 0, 0]
    assert _raw(store, "onehot_feat5", users["onehot_feat5"]) == [
        *("1", "1", "1", None)
    ]
    incomplete = store.manifest["incomplete"]
    assert {k: n for k, n in incomplete.items() if n} == {
        "exposures of a video without features": 1,
        "users without a profile": 1,
    }


def test_what_a_candidate_may_not_know() -> None:
    fields = {f.name for f in SCHEMA.candidate_fields}
    fields |= {f.name for f in SCHEMA.candidate_dense_fields}
    assert fields == {
        "video_id",
        "author_id",
        "music_id",
        "tag",
        "video_type",
        "upload_type",
        "tags",
        "tab",
        "video_duration",
    }


def test_numbers_of_behaviors(store: Store) -> None:
    behaviors = store.shards[0].behaviors
    np.testing.assert_array_equal(
        behaviors["play_time"],
        np.array([0.9, 0, 4.5, np.nan, 9.001, 0.001], "f4"),
    )
    np.testing.assert_array_equal(
        behaviors["video_duration"][:3], np.array([5000, np.nan, 5000], "f4")
    )


def test_chosen_test_day(raw_dir: Path, tmp_path: Path) -> None:
    day = datetime.date(2022, 4, 30)
    store = prepare(
        "kuairand", raw_dir, tmp_path / "a", options=Options(test_start=day)
    )
    assert store.manifest["split"]["test_time"] == 1651248000
    with pytest.raises(InputError, match="no test request"):
        prepare(
            "kuairand",
            raw_dir,
            tmp_path / "b",
            options=Options(test_start=day + datetime.timedelta(days=1)),
        )


def test_all_logs_of_a_version_in_parts(raw_dir: Path, tmp_path: Path) -> None:
    for name in KUAIRAND:
        (raw_dir / name).rename(raw_dir / name.replace("pure", "27k"))
    log = (raw_dir / LOG.replace("pure", "27k")).rename(
        raw_dir / LOG.replace("pure", "27k_part1")
    )
    header, first, *_, last = log.read_text().splitlines(keepends=True)
    log.write_text(header + first + last)
    (raw_dir / LOG.replace("pure", "27k_part2")).write_text(header + last)
    other = first.replace("1651247999999", "1650000000000")
    name = "log_standard_4_08_to_4_21_27k_part1.csv"
    (raw_dir / name).write_text(header + other)
    (raw_dir / "log_random_4_22_to_5_08_27k.csv").write_text("not read")
    store = prepare(
        "kuairand",
        raw_dir,
        tmp_path / "store",
        options=Options(test_start=datetime.date(2022, 4, 29)),
    )
    assert store.manifest["counts"]["behaviors"] == 3
    assert store.manifest["dropped"]["repeated exposures"] == 1
    assert len(store.manifest["sources"]) == 5
    # Rows of the parts are in the order of the names of the files.
    assert store.manifest["rows"]["impressions"] == {"read": 4, "valid": 4}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (LOG, "1651240000900,0", "1651240000900,2", "line 5: `is_click` is 0"),
        (LOG, "1651240000900", "1651240000900000", "line 5: the time is not"),
        (LOG, "1651240000900", "1651240000", "line 5: the time is not in Unix"),
        (LOG, "1651240000900", "-1", "line 5: the time is not in Unix"),
        (LOG, "1651240000900", "", "line 5: `time_ms` is missing"),
        (LOG, "2,12,", "2,b12,", "line 7: `video_id` is not a whole number"),
        ("video_features_basic_pure.csv", "\n11", "\n10", "line 3: repeated"),
        (
            "video_features_basic_pure.csv",
            "39,68",
            "39,x",
            "line 2: `tag` of type string cannot be read as int64. Received: "
            "tag='x'",
        ),
        ("user_features_pure.csv", "\n1,", "\n\xff,", "line 2: not utf-8"),
    ],
)
@pytest.mark.parametrize("range_bytes", [16, 1 << 20])
def test_bad_input(
    raw_dir: Path,
    tmp_path: Path,
    name: str,
    old: str,
    new: str,
    message: str,
    range_bytes: int,
) -> None:
    assert old in KUAIRAND[name]
    raw_files.write(raw_dir, {name: KUAIRAND[name].replace(old, new, 1)})
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare(
            "kuairand", raw_dir, tmp_path / "store", range_bytes=range_bytes
        )
    assert str(caught.value).startswith(f"{raw_dir / name}, line ")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_files_of_no_or_two_versions(raw_dir: Path, tmp_path: Path) -> None:
    (raw_dir / "user_features_1k.csv").write_text("")
    with pytest.raises(InputError, match=r"one version.*Received: 1k, pure"):
        prepare("kuairand", raw_dir, tmp_path / "store")
    for path in raw_dir.glob("user_features_*"):
        path.unlink()
    with pytest.raises(InputError, match=r"one version.*none of them"):
        prepare("kuairand", raw_dir, tmp_path / "store")


def test_no_log(raw_dir: Path, tmp_path: Path) -> None:
    (raw_dir / LOG).unlink()
    with pytest.raises(InputError, match="no file log_standard"):
        prepare("kuairand", raw_dir, tmp_path / "store")


def test_real_days(real_store: Store) -> None:
    counts = real_store.manifest["counts"]
    assert counts["behaviors"] == 91_805
    assert counts["train"]["candidates"] == 71_444
    assert counts["test"]["candidates"] == 20_361
    assert real_store.manifest["split"]["test_time"] == 1651248000
    assert real_store.manifest["dropped"]["repeated exposures"] == 2_979


def test_real_days_have_no_leak(real_store: Store, real_dir: Path) -> None:
    looked_at = leaks.check_histories(real_store)
    # The same number from the raw file: pairs of a request and an earlier
    # exposure of its user.
    log = pd.read_csv(real_dir / LOG).drop_duplicates(
        ["user_id", "video_id", "time_ms"]
    )
    log["time"] = log.time_ms // 1000
    requests = log[["user_id", "time_ms", "time"]].drop_duplicates()
    pairs = requests.merge(log[["user_id", "time"]], on="user_id")
    assert looked_at == (pairs.time_y < pairs.time_x).sum()


def test_real_histories_hold_the_raw_values(
    real_store: Store, real_dir: Path
) -> None:
    shard = real_store.shards[0]
    log = pd.read_csv(real_dir / LOG).drop_duplicates(
        ["user_id", "video_id", "time_ms"]
    )
    log = log[log.user_id.isin(shard.user_id)]
    log["time"] = log.time_ms // 1000
    log = log.sort_values(["user_id", "time_ms"], kind="stable")
    np.testing.assert_array_equal(shard.behavior_time, log["time"])
    for table, values in (
        ("tab", log["tab"]),
        ("feedback", log.is_click + 2 * log.long_view + 4 * log.is_like),
    ):
        assert _raw(real_store, table, shard.behaviors[table]) == list(values)
    np.testing.assert_allclose(
        shard.behaviors["play_time"], log.play_time_ms / 1000, rtol=1e-6
    )
    assert real_store.longest_sets == {
        "behavior_tags": 3,
        "candidate_tags": 3,
    }
    videos = np.array(_raw(real_store, "video_id", shard.behaviors["video_id"]))
    known = videos != "rare"
    assert known.mean() > 0.9
    np.testing.assert_array_equal(
        videos[known].astype(int), log.video_id.to_numpy()[known]
    )
