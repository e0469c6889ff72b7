"""`python -m data_pipelines.statistics`: served numbers are prepared ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipelines.raw.split_rule import FromTime
from data_pipelines.statistics import INDEX, parse_time, write_served
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.time_zone import UTC, TimeZone
from tests import commands
from tests.data_pipelines.reference_statistics import (
    END_TIME,
    FIRST_TIME,
    STATISTICS,
    TEST_TIME,
    drawn_log,
    log_dataset,
)
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    small_dataset,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("served")
    split = FromTime(time=TEST_TIME, rule="from then on")
    made = log_dataset(drawn_log(), folder / "raw", split=split)
    return prepared(made, folder / "store", num_shards=3)


class FeatureStore:
    """Looks up what a folder of the command says, as a caller would."""

    def __init__(self, folder: Path) -> None:
        self.index = json.loads((folder / INDEX).read_text("utf-8"))
        self.tables: dict[str, dict[Any, dict[str, float]]] = {}
        for statistic in STATISTICS:
            said = self.index["statistics"][statistic.name]
            rows = pq.read_table(folder / said["file"]).to_pylist()
            assert len(rows) == said["values"]
            self.tables[statistic.name] = {
                tuple(row.pop(c) for c in statistic.columns): row
                for row in rows
            }

    def numbers(self, name: str, value: Any) -> dict[str, float | None]:
        said = self.index["statistics"][name]
        if None in value:
            return dict.fromkeys(said["unseen"])
        return self.tables[name].get(value, said["unseen"])


def test_a_served_request_has_the_numbers_of_a_prepared_one(
    store: Store, tmp_path: Path
) -> None:
    assert store.sampled_requests is not None
    requests = pq.read_table(store.sampled_requests).to_pylist()
    served: dict[int, FeatureStore] = {}
    # A sampled request has no id of its user; its number leads to it.
    users = [
        int(shard.user_id[user])
        for shard in store.shards
        for user in shard.splits["test"].user
    ]
    num_unseen = 0
    for request in requests:
        time = request["request_time"]
        if time not in served:
            write_served(store, time, tmp_path / str(time))
            served[time] = FeatureStore(tmp_path / str(time))
        user = {
            "user_id": users[request["request"]],
            "user.age": request["user_age"],
        }
        for statistic in STATISTICS:
            for place in range(len(request["label"])):
                value = tuple(
                    None if v in (-(2**63), "") else v
                    for v in (
                        user[field]
                        if field in user
                        else request[field.replace(".", "_")][place]
                        for field in statistic.fields
                    )
                )
                found = served[time].numbers(statistic.name, value)
                num_unseen += value not in served[time].tables[statistic.name]
                for name, number in found.items():
                    expected = request[name][place]
                    # To the bit: both are float32.
                    assert number == expected, name
    assert len(served) > 10
    assert num_unseen > 20


def test_before_and_after_everything(store: Store, tmp_path: Path) -> None:
    index = write_served(store, FIRST_TIME - 50, tmp_path / "before")
    assert pq.read_table(tmp_path / "before" / "thing.parquet").num_rows == 0
    unseen = index["statistics"]["thing"]["unseen"]
    assert unseen["candidate_thing_rate_all"] == 0.5
    assert unseen["candidate_thing_impressions_4s"] == 0.0
    assert unseen["candidate_thing_age"] is None
    # Kinds have been shown, but a moment ago: nobody has been told.
    index = write_served(store, FIRST_TIME + 4, tmp_path / "late")
    assert index["statistics"]["thing"]["values"] > 0
    assert index["statistics"]["late"]["values"] == 0
    index = write_served(store, END_TIME + 500, tmp_path / "after")
    said = index["statistics"]
    for name, counts in store.manifest["statistics"].items():
        assert said[name]["values"] == counts["values"]
    parts = [store.manifest["counts"][split] for split in ("train", "test")]
    candidates = sum(part["candidates"] for part in parts)
    clicks = sum(part["positives"] for part in parts)
    assert said["late"]["unseen"]["candidate_late_rate_6s"] == np.float32(
        clicks / candidates
    )
    table = pq.read_table(tmp_path / "after" / "aged.parquet")
    assert table.column_names == [
        "candidate_kind",
        "user_age",
        "candidate_aged_rate_9s",
        "candidate_aged_rate_all",
    ]


def test_says_how_long_it_is_good(store: Store, tmp_path: Path) -> None:
    result = commands.run(
        "data_pipelines.statistics",
        f"--store={store.path}",
        "--as_of=1970-01-01T00:02:11",
        f"--output={tmp_path / 'served'}",
        cwd=tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "late.parquet: late of 3 values" in result.stdout
    assert "good for requests of Unix seconds 130 to 131\n" in result.stdout
    said = json.loads((tmp_path / "served" / INDEX).read_text("utf-8"))
    assert said["as_of"] == 131
    late = said["statistics"]["late"]
    assert (late["good_from"], late["counted_before"]) == (130, 126)
    assert [p.name for p in tmp_path.iterdir()] == ["served"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1494604800", 1494604800),
        ("2017-05-13", 1494604800),
        ("2017-05-13T01:30", 1494604800 + 5400),
        ("2017-05-13T00:00:01Z", 1494604801 + 8 * 3600),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert parse_time(text, TimeZone.fixed(8 * 60)) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", "must be Unix seconds, or a date .* yesterday"),
        ("0", "must be from 1970 to 2100"),
        ("1494604800000", "must be from 1970 to 2100, in seconds"),
    ],
)
def test_no_times(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_time(text, UTC)


def test_what_is_refused(store: Store, tmp_path: Path) -> None:
    made = small_dataset(drawn_rows(3), tmp_path / "raw")
    without = prepared(made, tmp_path / "without")
    with pytest.raises(InputError, match="has no statistics: prepare it with"):
        write_served(without, 5, tmp_path / "served")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        write_served(store, 5, tmp_path / "taken")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"raw", "without", "taken"}
