"""Where the validation of a store begins."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.preparation.validation_time import find_validation
from data_pipelines.raw.split_rule import FromTime, SplitRule
from data_pipelines.raw.validation_rule import newest, validation_rule
from data_pipelines.stores.shard import add_nested
from data_pipelines.stores.split_parts import count_rows
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.time_zone import UTC, TimeZone
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    small_dataset,
)

CHINA = TimeZone.fixed(480)


def _coded(folder: Path, *shards: list[int]) -> list[Path]:
    paths = []
    for number, times in enumerate(shards):
        path = folder / str(number)
        (path / "train").mkdir(parents=True)
        np.save(path / "train" / "time.npy", np.array(times, np.uint32))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Two of ten in each second, which stay together.
        (None, 50),
        (newest(0.2), 50),
        (newest(0.5), 30),
        (FromTime(time=31, rule="from 31 on"), 31),
    ],
)
def test_newest_by_time(
    rule: SplitRule | None, expected: int, tmp_path: Path
) -> None:
    shards = _coded(tmp_path, [10, 50, 20, 40], [], [30, 50, 10, 20, 40, 30])
    found = find_validation(shards, rule, 60)
    assert found["validation_time"] == expected
    if rule is None:
        assert found == find_validation(shards, newest(0.1), 60)
        assert "first 90% of all requests" in found["validation_rule"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (FromTime(time=10, rule="r"), "has 3 requests before the test and"),
        (FromTime(time=10, rule="r"), "leaves 0 to train on. Move it by --va"),
        (FromTime(time=12, rule="r"), "has 0 requests before the test and"),
        # Beyond the test it is none either.
        (FromTime(time=99, rule="r"), "leaves 3 to train on"),
        (newest(0.9), "leaves 0 to train on"),
    ],
)
def test_empty_parts_are_refused(
    rule: SplitRule, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        find_validation(_coded(tmp_path, [10], [11, 10]), rule, 60)


def test_a_tiny_store_is_none_of_the_preparations_business(
    tmp_path: Path,
) -> None:
    assert find_validation(_coded(tmp_path, [10]), None, 60) == {
        "validation_rule": (
            "first 90% of all requests before the test by time for training"
        ),
        "validation_time": 10,
    }


def test_rules_of_the_flags() -> None:
    assert validation_rule(None, None, CHINA) is None
    assert validation_rule(None, 0.25, CHINA) == newest(0.25)
    midnight = 1651161600  # 2022-04-29 in China
    for moment, time in (
        ("2022-04-29", midnight),
        ("2022-04-29T01:30", midnight + 5400),
        ("2022-04-28T16:00:00+00:00", midnight),
    ):
        rule = validation_rule(moment, None, CHINA)
        assert rule is not None
        none = np.zeros(0, np.int64)
        found, words = rule.resolve((none, none))
        assert found == time
        assert "for validation" in words


@pytest.mark.parametrize(
    ("moment", "fraction", "message"),
    [
        ("2022-04-29", 0.1, "exclude each other"),
        (None, 0.0, "must be between 0 and 1. Received: 0.0"),
        (None, 1.0, "must be between 0 and 1. Received: 1.0"),
        (None, float("nan"), "must be between 0 and 1. Received: nan"),
        ("29.4.", None, "--validation_time must be a date such as"),
    ],
)
def test_bad_flags(
    moment: str | None, fraction: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        validation_rule(moment, fraction, UTC)


def test_manifest_is_the_same_for_any_shards(tmp_path: Path) -> None:
    made = small_dataset(drawn_rows(9), tmp_path / "raw")
    stores: list[Store] = [
        prepared(made, tmp_path / str(num), num_shards=num) for num in (1, 3)
    ]
    assert stores[0].manifest["split"] == stores[1].manifest["split"]
    for store in stores:
        times = np.concatenate(
            [shard.splits["train"].time for shard in store.shards]
        )
        time = np.sort(times)[int(0.9 * len(times))]
        assert store.validation_time == time
        counts = store.manifest["counts"]
        shares = [counts[p]["requests"] for p in ("train_older", "validation")]
        assert shares == [(times < time).sum(), (times >= time).sum()]
        assert counts == add_nested(
            [count_rows(shard, int(time)) for shard in store.shards]
        )
