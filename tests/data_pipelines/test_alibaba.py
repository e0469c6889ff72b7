import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import write_sample
from sparsectr.errors import InputError
from sparsectr.time_zone import TimeZone
from tests.data_pipelines import leaks, raw_files
from tests.data_pipelines.raw_files import ALIBABA, TEST_TIME


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return raw_files.write(tmp_path / "raw", ALIBABA)


@pytest.fixture
def store(raw_dir: Path, tmp_path: Path) -> Store:
    return prepare("alibaba", raw_dir, tmp_path / "store")


def _raw(store: Store, table: str, ids: Any) -> list[Any]:
    """Returns raw values; None for missing, "rare" for out of vocabulary."""
    values = store.vocabulary(table).values
    assert values is not None
    raw = [None, "rare", *values.to_pylist()]
    return [raw[i] for i in ids]


def test_requests_and_candidates(store: Store) -> None:
    shard = store.shards[0]
    assert shard.user_id.tolist() == [1, 2, 3]
    train, test = shard.splits["train"], shard.splits["test"]
    assert train.user.tolist() == [0, 1, 2]
    assert train.time.tolist() == [1494010000, 1494020000, TEST_TIME - 1]
    assert train.candidate_offset.tolist() == [0, 2, 3, 4]
    assert train.label.tolist() == [1, 0, 0, 0]
    assert test.time.tolist() == [TEST_TIME]
    assert _raw(store, "adgroup_id", train.candidates["adgroup_id"]) == [
        "rare",  # Ad 10 has one training impression; its second is for test.
        11,
        11,
        "rare",
    ]
    assert _raw(store, "pid", test.candidates["pid"]) == ["430539_1007"]


def test_brand_null_and_ad_without_features_are_missing(store: Store) -> None:
    candidates = store.shards[0].splits["train"].candidates
    assert _raw(store, "brand", candidates["brand"]) == [7, None, None, None]
    assert _raw(store, "cate", candidates["cate"]) == [5, 6, 6, None]
    assert candidates["cate"][3] == candidates["customer"][3] == 0
    np.testing.assert_array_equal(
        candidates["price"], np.array([170, 0.01, 0.01, np.nan], "f4")
    )
    assert store.manifest["incomplete"] == {
        "candidates of an advertisement without features": 1,
        "users without a profile": 1,
        "users without a behavior": 1,
    }


def test_histories(store: Store) -> None:
    shard = store.shards[0]
    assert shard.behavior_offset.tolist() == [0, 3, 4, 4]
    assert shard.behavior_time.tolist() == [
        1494009999,
        1494010000,
        1494010001,
        1494000000,
    ]
    assert _raw(store, "btag", shard.behaviors["btag"]) == [
        "buy",
        "pv",
        "pv",
        "cart",
    ]
    # The behavior in the request's own second is not in its history.
    assert shard.splits["train"].history_end.tolist() == [1, 4, 4]
    assert shard.splits["test"].history_end.tolist() == [3]
    assert store.manifest["dropped"] == {
        "behaviors at an impossible time": 2,
        "repeated behaviors": 1,
        "behaviors of users without a request": 1,
        "profiles of users without a request": 1,
    }


def test_profiles(store: Store) -> None:
    train, test = (store.shards[0].splits[s] for s in ("train", "test"))
    assert train.user.tolist() == [0, 1, 2]
    users = train.users
    assert _raw(store, "age_level", users["age_level"]) == [0, 4, None]
    assert _raw(store, "cms_segid", users["cms_segid"]) == [0, 0, None]
    assert _raw(store, "occupation", users["occupation"]) == [0, 1, None]
    assert _raw(store, "pvalue_level", users["pvalue_level"]) == [None, 1, None]
    level = users["new_user_class_level"]
    assert _raw(store, "new_user_class_level", level) == [3, None, None]
    # Of the first user, whose request is the only one for test.
    levels = {name: ids[0] for name, ids in users.items()}
    assert {name: ids[0] for name, ids in test.users.items()} == levels


def test_schema_and_manifest(store: Store) -> None:
    assert store.schema.time_zone == TimeZone.fixed(8 * 60)
    shared = {"cate", "brand"}
    assert shared <= {f.table for f in store.schema.behavior_fields}
    assert shared <= {f.table for f in store.schema.candidate_fields}
    price = store.schema.candidate_dense_fields[0]
    logs = np.log1p(np.array([170, 0.01, 0.01]))
    assert price.mean == pytest.approx(logs.mean())
    assert price.scale == pytest.approx(logs.std())
    assert store.manifest["split"]["test_time"] == TEST_TIME
    assert store.manifest["data_source"] == "raw files"
    sources = {s["file"]: s for s in store.manifest["sources"]}
    assert set(sources) == set(ALIBABA)
    for name, text in ALIBABA.items():
        data = text.encode()
        assert sources[name]["bytes"] == len(data)
        assert sources[name]["sha256"] == hashlib.sha256(data).hexdigest()
    assert store.manifest["rows"] == {
        "impressions": {"read": 5, "valid": 5},
        # Two are at an impossible time.
        "behaviors": {"read": 8, "valid": 6},
        "users": {"read": 3, "valid": 3},
        "items": {"read": 2, "valid": 2},
    }
    ids = store.manifest["out_of_vocabulary"]["train candidate_adgroup_id"]
    assert ids == {"rows": 4, "missing": 0, "out_of_vocabulary": 2}


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        (1492790399, False),
        (1492790400, True),
        (1494691199, True),
        (1494691200, False),
        (0, False),
    ],
)
def test_possible_times(
    raw_dir: Path, tmp_path: Path, time: int, kept: bool
) -> None:
    with (raw_dir / "behavior_log.csv").open("a") as file:
        file.write(f"1,{time},fav,5,7\n")
    store = prepare("alibaba", raw_dir, tmp_path / "store")
    assert (time in store.shards[0].behavior_time) == kept


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("raw_sample.csv", "user,", "uid,", "line 1: the header has no column"),
        ("raw_sample.csv", "nonclk,clk", "noclk,clk", "no column nonclk"),
        ("raw_sample.csv", "\n2,", "\nx2,", "line 4: `user` is not a whole"),
        ("raw_sample.csv", "1494020000", "-1", "line 4: the time is not with"),
        ("raw_sample.csv", "1494020000", "1494691200", "line 4: the time is"),
        (
            "raw_sample.csv",
            "430548_1007,0,1\n",
            "430548_1007,1,1\n",
            "line 2: one of `clk` and `nonclk`",
        ),
        ("raw_sample.csv", "7,0,1\n", "7,-1,2\n", "line 2: one of `clk`"),
        (
            "ad_feature.csv",
            "\n11,",
            "\n10,",
            "line 3: repeated id. Received: adgroup_id=10",
        ),
        ("ad_feature.csv", "170.0", "dear", "line 2: `price` is not a number"),
        ("user_profile.csv", "\n9,", "\n2,", "line 4: repeated id"),
        ("user_profile.csv", "\n9,1,", "\n9,", "line 4: 8 values where 9"),
        ("behavior_log.csv", "cart", "ipv", "line 9: `btag` is one of pv, car"),
        ("behavior_log.csv", "cart", "\xff", "line 9: not utf-8 text"),
        ("behavior_log.csv", "cart,6,8\n", "cart,6", "line 9: 4 values where"),
        ("behavior_log.csv", "cart,6,8\n", "cart,6,8", "line 9: the last line"),
        ("behavior_log.csv", "\n2,", "\n,", "line 9: `user` is missing"),
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
    text = ALIBABA[name]
    assert text.count(old) >= 1
    raw_files.write(raw_dir, {name: text.replace(old, new, 1)})
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare("alibaba", raw_dir, tmp_path / "store", range_bytes=range_bytes)
    assert str(caught.value).startswith(f"{raw_dir / name}, line ")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("name", list(ALIBABA))
def test_missing_file(raw_dir: Path, tmp_path: Path, name: str) -> None:
    (raw_dir / name).unlink()
    with pytest.raises(InputError, match=f"no file {name}"):
        prepare("alibaba", raw_dir, tmp_path / "store")


def test_no_rows(raw_dir: Path, tmp_path: Path) -> None:
    header = ALIBABA["raw_sample.csv"].splitlines(keepends=True)[0]
    raw_files.write(raw_dir, {"raw_sample.csv": header})
    with pytest.raises(InputError, match="no training request"):
        prepare("alibaba", raw_dir, tmp_path / "store")


def test_no_behavior_at_all(raw_dir: Path, tmp_path: Path) -> None:
    header = ALIBABA["behavior_log.csv"].splitlines(keepends=True)[0]
    raw_files.write(raw_dir, {"behavior_log.csv": header})
    store = prepare("alibaba", raw_dir, tmp_path / "store")
    assert store.manifest["counts"]["behaviors"] == 0
    assert store.manifest["incomplete"]["users without a behavior"] == 3
    assert leaks.check_histories(store) == 0


@pytest.mark.parametrize("suffix", [".gz", ".tar.gz", ".zip"])
def test_packed_files(
    raw_dir: Path, store: Store, tmp_path: Path, suffix: str
) -> None:
    for name, text in ALIBABA.items():
        (raw_dir / name).unlink()
        data = raw_files.packed(text.encode(), suffix, name)
        (raw_dir / f"{name}{suffix}").write_bytes(data)
    other = prepare("alibaba", raw_dir, tmp_path / "other")
    for entry in ("counts", "content", "rows", "dropped", "incomplete"):
        assert other.manifest[entry] == store.manifest[entry]
    np.testing.assert_array_equal(
        other.shards[0].behavior_time, store.shards[0].behavior_time
    )


def test_ranges_of_any_size(
    raw_dir: Path, store: Store, tmp_path: Path
) -> None:
    for range_bytes in (7, 100):
        other = prepare(
            "alibaba",
            raw_dir,
            tmp_path / f"store{range_bytes}",
            range_bytes=range_bytes,
        )
        for entry in ("counts", "content", "rows", "dropped", "incomplete"):
            assert other.manifest[entry] == store.manifest[entry]


def test_made_files_have_no_leak(tmp_path: Path) -> None:
    write_sample(tmp_path / "raw", num_users=200, seed=1)
    store = prepare("alibaba", tmp_path / "raw", tmp_path / "store")
    assert store.manifest["data_source"] == "synthetic sample"
    assert leaks.check_histories(store) > 100_000
    assert store.manifest["dropped"]["repeated behaviors"] > 1000
    assert store.manifest["incomplete"]["users without a profile"] > 0


def test_leak_check_sees_a_leak(store: Store, tmp_path: Path) -> None:
    leaks.check_histories(store)
    file = store.path / "shard-00000-of-00001" / "train" / "history_end.npy"
    right = np.load(file)
    for shift, message in ((1, "a leak"), (-1, "a lost behavior")):
        wrong = right.copy()
        wrong[0] += shift
        np.save(file, wrong)
        with pytest.raises(AssertionError, match=message):
            leaks.check_histories(Store(store.path))
