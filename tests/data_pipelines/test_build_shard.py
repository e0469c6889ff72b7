"""Codes of a shard's own, counts of its training period, sums of features."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.preparation.build_shard import (
    ShardTask,
    build_shard,
    mean_and_scale,
    read_counts,
)
from data_pipelines.preparation.scan import (
    PartTask,
    Scan,
    shard_folders,
    write_part,
)
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.stores.shard import Shard
from tests.data_pipelines.small_dataset import (
    SCHEMA,
    TEST_TIME,
    Rows,
    drawn_rows,
    reference,
    small_dataset,
)

NUM_SHARDS = 3
LATE_ITEM = 99


@pytest.fixture
def rows() -> dict[str, Rows]:
    rows = drawn_rows(8)
    rows["behaviors"] = [*rows["behaviors"], (3, 9, LATE_ITEM, "a")]
    return rows


@pytest.fixture
def dataset(rows: dict[str, Rows], tmp_path: Path) -> RawDataset:
    return small_dataset(rows, tmp_path / "raw")


@pytest.fixture
def tasks(dataset: RawDataset, tmp_path: Path) -> list[ShardTask]:
    """One task a shard; the rows are there in parts."""
    for table in dataset.tables:
        scan = Scan(table=table, key="user_id", num_shards=NUM_SHARDS)
        for number, split in enumerate(table.splits(1)):
            folder = tmp_path / "parts" / table.name / f"{number}"
            write_part(PartTask(scan=scan, split=split, folder=folder))
    return [
        ShardTask(
            dataset=dataset,
            parts=tmp_path / "parts",
            shard=shard,
            test_time=TEST_TIME,
            folder=tmp_path / "coded" / f"{shard}",
            range_bytes=1,
            sample_requests=0,
        )
        for shard in range(NUM_SHARDS)
    ]


def test_counts_of_all_shards_are_those_of_the_training_period(
    rows: dict[str, Rows], tasks: list[ShardTask]
) -> None:
    summaries = [build_shard(task) for task in tasks]
    expected = reference(rows)
    for table in SCHEMA.tables:
        total: dict[object, int] = {}
        for task in tasks:
            counts = read_counts(task.folder, table.name)
            values = counts["value"].to_pylist()
            assert len(set(values)) == len(values)
            assert None not in values
            for value, count in zip(
                values, counts["count"].to_pylist(), strict=True
            ):
                total[value] = total.get(value, 0) + count
        frequent = [v for v, n in total.items() if n >= table.min_count]
        frequent.sort(key=lambda value: (-total[value], value))
        assert frequent == expected["vocabularies"][table.name]
        if table.name == "item":
            # One of the test period alone has a code all the same.
            assert total[LATE_ITEM] == 0
    requests = expected["requests"]
    assert sum(s.num_train for s in summaries) == len(requests["train"])
    assert sum(s.num_test for s in summaries) == len(requests["test"])
    prices = [summary.dense["candidate_price"] for summary in summaries]
    assert sum(count for count, _, _ in prices) == len(expected["prices"])
    mean, scale = mean_and_scale(prices)
    assert mean == pytest.approx(np.mean(expected["prices"]))
    assert scale == pytest.approx(np.std(expected["prices"]))


def test_codes_say_which_value(
    rows: dict[str, Rows], tasks: list[ShardTask]
) -> None:
    expected = reference(rows)["behaviors"]
    num_users = 0
    for task in tasks:
        build_shard(task)
        shard = Shard.open(task.folder, SCHEMA)
        for row, user in enumerate(shard.user_id.tolist()):
            own = slice(*shard.behavior_offset[row : row + 2].tolist())
            for name in ("item", "kind"):
                counts = read_counts(task.folder, name)
                values = [None, *counts["value"].to_pylist()]
                codes = shard.behaviors[name][own].tolist()
                assert [values[code] for code in codes] == [
                    behavior[name] for behavior in expected[user]
                ]
            num_users += 1
    assert num_users == len(expected)


def test_parts_are_removed_when_the_shard_is_there(
    tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks[1]

    def parts(shard: int) -> list[Path]:
        return [
            folder
            for table in task.dataset.tables
            for folder in shard_folders(task.parts / table.name, shard)
        ]

    others = parts(0) + parts(2)
    assert parts(1)
    assert others
    summary = build_shard(task)
    assert not parts(1)
    assert parts(0) + parts(2) == others
    files = {p: p.stat().st_mtime_ns for p in task.folder.rglob("*")}
    # Neither needed nor built again.
    monkeypatch.setattr(
        "data_pipelines.preparation.build_shard.build_listwise", None
    )
    assert build_shard(task) == summary
    assert {p: p.stat().st_mtime_ns for p in task.folder.rglob("*")} == files


def test_a_shard_without_rows(
    tasks: list[ShardTask], dataset: RawDataset
) -> None:
    shutil.rmtree(tasks[0].parts)
    summary = build_shard(tasks[0])
    assert summary.num_train == summary.num_test == 0
    assert summary.dense == {"candidate_price": [0, "0", "0"]}
    assert set(summary.dropped.values()) == {0}
    shard = Shard.open(tasks[0].folder, SCHEMA)
    assert shard.num_users == 0
    assert shard.behavior_offset.tolist() == [0]
    for table in SCHEMA.tables:
        assert len(read_counts(tasks[0].folder, table.name)) == 0


def test_mean_and_scale_do_not_depend_on_the_division() -> None:
    values = [Fraction(v) for v in (0.1, 0.2, 0.3, 1e9, 1e-9)]

    def part(chosen: list[Fraction]) -> tuple[int, str, str]:
        squares = sum((v * v for v in chosen), Fraction(0))
        return len(chosen), str(sum(chosen, Fraction(0))), str(squares)

    whole = mean_and_scale([part(values)])
    assert whole == (float(sum(values) / 5), pytest.approx(4e8))
    for place in range(6):
        parts = [part(values[place:]), part([]), part(values[:place])]
        assert mean_and_scale(parts) == whole


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e6])
def test_a_constant_has_scale_one(value: float) -> None:
    square = Fraction(value) ** 2
    part = (3, str(3 * Fraction(value)), str(3 * square))
    assert mean_and_scale([part]) == (value, 1.0)
    assert mean_and_scale([(0, "0", "0")]) == (0.0, 1.0)
    assert mean_and_scale([]) == (0.0, 1.0)
