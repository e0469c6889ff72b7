"""Ele.me, on made files of the documented form."""

import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from data_pipelines.datasets import eleme
from data_pipelines.datasets.eleme import ElemeOptions
from data_pipelines.prepare import RANGE_BYTES, Options, prepare
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines import eleme_files, leaks
from tests.data_pipelines.check_store import check_store
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.eleme_files import (
    MIDNIGHT,
    PADDING,
    Row,
    days,
    row,
)
from tests.data_pipelines.reference_eleme import expected_store

NOON = MIDNIGHT[7] + 43_200
HOUR = 3600
HOUR_MS = 3_600_000

_QUICK = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def _prepare(
    folder: Path,
    files: dict[str, Sequence[Row]],
    *,
    name: str = "store",
    num_shards: int = 1,
    **options: Any,
) -> Store:
    return prepare(
        "eleme",
        eleme_files.write(folder / "raw", files),
        folder / name,
        options=Options(eleme=ElemeOptions(**options)),
        num_shards=num_shards,
        num_workers=1,
        range_bytes=RANGE_BYTES if num_shards == 1 else 1000,
    )


def _check(files: dict[str, list[Row]], *, drop: bool) -> None:
    by_day = {
        # Part 2 comes before part 10.
        day: [
            r
            for name in sorted(files, reverse=True)
            if re.match(rf"(D|.*0){day}_", name)
            for r in files[name]
        ]
        for day in (7, 8)
    }
    expected = expected_store(by_day)
    with tempfile.TemporaryDirectory() as name:
        stores = [
            _prepare(
                Path(name),
                dict(files),
                name=f"store {n}",
                num_shards=n,
                drop_corrupted_rows=drop,
            )
            for n in (1, 3)
        ]
        contents = {store.manifest["content"] for store in stores}
        assert len(contents) == 1
        for store in stores:
            check_store(store, expected)
            assert "no history reaches its request" in verify_store(store.path)


@given(eleme_files.raw_files())
@_QUICK
def test_store_holds_what_the_files_say(files: dict[str, list[Row]]) -> None:
    _check(files, drop=False)


@given(eleme_files.raw_files(corrupted=True))
@_QUICK
def test_corrupted_rows_are_dropped(files: dict[str, list[Row]]) -> None:
    _check(files, drop=True)


@pytest.mark.slow
@given(eleme_files.raw_files(), eleme_files.raw_files(corrupted=True))
@settings(_QUICK, max_examples=500, derandomize=False)
def test_long_search_for_a_wrong_row(
    sound: dict[str, list[Row]], corrupted: dict[str, list[Row]]
) -> None:
    _check(sound, drop=False)
    _check(corrupted, drop=True)


def test_columns_are_the_documented_ones() -> None:
    assert list(eleme.COLUMNS) == eleme_files.COLUMNS
    assert len(eleme.COLUMNS) == 39


def test_request_is_a_user_a_second_and_a_place(tmp_path: Path) -> None:
    store = _prepare(
        tmp_path,
        days(
            row(item_id=1, geohash12="b"),
            row(item_id=2, geohash12="a", clicked=1),
            row(item_id=3, geohash12="b", gender=2),
            row(item_id=4, times=NOON + 1, gender=-99),
            row(item_id=5, user_id=2),
        ),
    )
    train = store.shards[0].splits["train"]
    assert train.time.tolist() == [NOON, NOON, NOON + 1, NOON]
    assert train.candidate_offset.tolist() == [0, 1, 3, 4, 5]
    assert train.label.tolist() == [1, 0, 0, 0, 0]
    # A profile is as of the request, and of its first row.
    genders = [r.profile["gender"] for r in decode(store).requests[:4]]
    assert genders == [1, 1, None, 1]


def test_history_is_in_the_order_of_times(tmp_path: Path) -> None:
    history = [
        {"timediff_list": 2 * HOUR_MS, "hours_list": 10},
        {"timediff_list": 30 * 24 * HOUR_MS, "hours_list": 12},
        PADDING,
        {"timediff_list": 1, "hours_list": 11},
        {"timediff_list": 0, "hours_list": 12},
    ]
    store = _prepare(tmp_path, days(row(history)))
    assert store.shards[0].behavior_time.tolist() == [
        NOON - 30 * 24 * HOUR,
        NOON - 2 * HOUR,
        NOON - 1,
    ]
    assert store.manifest["dropped"] == {
        "behaviors without a time": 0,
        "behaviors at or after their request": 1,
        "repeated behaviors": 0,
        "behaviors of users without a request": 0,
    }
    assert leaks.check_histories(store) == 3


def test_histories_of_all_requests_are_one(tmp_path: Path) -> None:
    first = {"timediff_list": HOUR_MS, "hours_list": 11}
    later = {"timediff_list": HOUR_MS, "hours_list": 12}
    same = {"timediff_list": 2 * HOUR_MS, "hours_list": 11}
    old = {"timediff_list": 9 * HOUR_MS, "hours_list": 4}
    store = _prepare(
        tmp_path,
        days(
            row([first]),
            row([first], item_id=2),
            row([later, same, old], times=NOON + HOUR),
        ),
    )
    shard = store.shards[0]
    # 4:00, 11:00 in both lists, and 12:00, which the first may not see.
    assert shard.behavior_time.tolist() == [
        NOON - 8 * HOUR,
        NOON - HOUR,
        NOON,
    ]
    assert shard.splits["train"].history_end.tolist() == [2, 3]
    assert store.manifest["dropped"]["repeated behaviors"] == 1


def test_finer_timediffs_can_double_a_behavior(tmp_path: Path) -> None:
    # 0.7 s before 11:00, seen at 12:00:00.6 and at 13:00:00.2.
    store = _prepare(
        tmp_path,
        days(
            row([{"timediff_list": HOUR_MS + 1300}]),
            row([{"timediff_list": 2 * HOUR_MS + 900}], times=NOON + HOUR),
        ),
    )
    assert store.shards[0].behavior_time.tolist() == [
        NOON - HOUR - 2,
        NOON - HOUR - 1,
    ]


@pytest.mark.parametrize(("unit", "hour"), [("s", 3600), ("min", 60)])
def test_units(tmp_path: Path, unit: str, hour: int) -> None:
    def files(hour: int) -> dict[str, Sequence[Row]]:
        return days(row([{"timediff_list": n * hour} for n in (1, 30, 700)]))

    expected = _prepare(tmp_path / "ms", files(HOUR_MS))
    store = _prepare(tmp_path / unit, files(hour), timediff_unit=unit)
    assert store.manifest["content"] == expected.manifest["content"]
    assert store.manifest["options"]["timediff_unit"] == unit


def test_wrong_unit_shows_in_the_hours(tmp_path: Path) -> None:
    history = [
        {"timediff_list": n * HOUR, "hours_list": 12 - n} for n in range(1, 11)
    ]
    said = "behaviors whose hour is not that of their time"
    right = _prepare(tmp_path / "s", days(row(history)), timediff_unit="s")
    assert right.manifest["incomplete"][said] == 0
    wrong = _prepare(tmp_path / "ms", days(row(history)))
    assert wrong.manifest["incomplete"][said] == 9


def test_chosen_days_and_first_day(tmp_path: Path) -> None:
    year = 365 * 86_400
    files = {
        f"D{day}_0.csv": [row(times=MIDNIGHT[day] - year)]
        for day in range(1, 9)
    }
    store = _prepare(
        tmp_path,
        files,
        train_days=(6, 3),
        test_days=(7, 8),
        first_day=datetime.date(2021, 4, 1),
    )
    split = store.manifest["split"]
    assert split["rule"] == "from 2021-04-07 on (UTC+8) for test"
    assert split["test_time"] == MIDNIGHT[7] - year
    # Half of the two, since less is none.
    assert split["validation_time"] == MIDNIGHT[6] - year
    names = [source["file"] for source in store.manifest["sources"]]
    assert names == [f"D{day}_0.csv" for day in (3, 6, 7, 8)]
    counts = store.manifest["counts"]
    assert counts["train"]["requests"] == counts["test"]["requests"] == 2
    assert store.manifest["options"] == {
        "train_days": [6, 3],
        "test_days": [7, 8],
        "first_day": "2021-04-01",
        "timediff_unit": "ms",
        "drop_corrupted_rows": False,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clicked": "2"}, "line 2: `clicked` is 0 or 1."),
        ({"user_id": ""}, "line 2: `user_id` is missing"),
        ({"brand_id": "x1"}, "line 2: `brand_id` is not a whole number: 'x1'"),
        ({"weekdays": "4,5"}, "line 2: 40 values where 39 belong"),
        (
            {"times": str(MIDNIGHT[8])},
            "line 2: the time is not in the day of the file, UTC+8, counted "
            f"from --first_day=2022-04-01. Received: times={MIDNIGHT[8]}, "
            "day=7",
        ),
        (
            {"item_id_list": "1;2;3"},
            "line 2: the lists of the history are of unequal lengths.",
        ),
        (
            {"hours_list": "11;noon"},
            "line 2: `hours_list` has a value that is not a number.",
        ),
        (
            {"item_id_list": "9223372036854775808;1"},
            "line 2: `item_id_list` has a value that is not a number.",
        ),
        (
            {"timediff_list": "1;inf"},
            "line 2: `timediff_list` has a value that is not a number.",
        ),
        (
            {"timediff_list": "1;31622400000"},
            "line 2: a behavior is a year or more away from its request; is "
            "--timediff_unit=ms right?",
        ),
    ],
)
def test_bad_row_is_refused(tmp_path: Path, changes: Row, message: str) -> None:
    sound = row([{}, {}])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        _prepare(tmp_path, days(sound, sound | changes, sound))
    assert str(tmp_path / "raw" / "D7_0.csv") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["D1_0.csv", "D2_3.csv.zip", "D8_0.csv"],
            "no file of day 7, D7_<part>.csv (nor .zip, .gz, .tar.gz); days "
            "there: 1,2,8. The publisher's list of files lacks that day: "
            "--train_days=6 trains",
        ),
        (["D7_0.csv", "D9_0.csv", "D8.csv"], "no file of day 8, D8_<part>.csv"),
        ([], "days there: none."),
        (
            ["D7_1.csv", "eleme_data_20220407_1.csv.gz", "D8_0.csv"],
            "a part of a day twice: D7_1.csv and eleme_data_20220407_1.csv.gz",
        ),
    ],
)
def test_files_that_are_not_there(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        _prepare(tmp_path, {name: [row()] for name in names})
    with pytest.raises(InputError, match="x is not a folder"):
        eleme.open_eleme(tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_days": ()}, "--train_days are numbers from 1 to 8.*none"),
        ({"test_days": (9,)}, "--test_days are numbers.* Received: 9"),
        (
            {"train_days": (1, 8), "test_days": (7,)},
            "before those of --test_days. Received: 1,8 and 7",
        ),
        ({"test_days": (7, 8)}, "before those of --test_days"),
        ({"timediff_unit": "h"}, "one of ms, s, min. Received: h"),
    ],
)
def test_options_that_make_no_split(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ElemeOptions(**options)


def test_command(repository: Path, tmp_path: Path) -> None:
    files = {"D6_0.csv.zip": [row(times=MIDNIGHT[6])]} | days(row())
    raw_dir = eleme_files.write(tmp_path / "raw", files)

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "data_pipelines.prepare"),
                *(f"--raw_dir={raw_dir}", f"--data_dir={tmp_path / 'store'}"),
                *flags,
            ],
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("--dataset=eleme", "--train_days=6,x")
    assert done.stderr == (
        "error: --train_days must be numbers such as 6,7. Received: 6,x\n"
    )
    done = run("--dataset=alibaba", "--timediff_unit=s")
    assert done.stderr.endswith("do not apply to alibaba.\n")
    done = run(
        "--dataset=eleme",
        "--train_days=6",
        "--test_days=7,8",
        "--first_day=2022-04-01",
        "--timediff_unit=s",
        "--drop_corrupted_rows",
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["options"] == {
        "train_days": [6],
        "test_days": [7, 8],
        "first_day": "2022-04-01",
        "timediff_unit": "s",
        "drop_corrupted_rows": True,
    }
    assert manifest["counts"]["test"]["requests"] == 2
