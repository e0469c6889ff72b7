"""Statistics of candidates: what a plain reference counts, and no leak."""

import collections
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.candidate_statistics import statistics_step
from data_pipelines.candidate_statistics.merge_pairs import HashRange
from data_pipelines.candidate_statistics.statistics_step import StatisticsStep
from data_pipelines.description.describe_text import describe
from data_pipelines.description.store_statistics import StoreStatistics
from data_pipelines.preparation.encode_shard import describe_files
from data_pipelines.preparation.result_files import read_arrow, write_arrow
from data_pipelines.raw.split_rule import FromTime
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import Table
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.reference_statistics import (
    END_TIME,
    FIRST_TIME,
    LOG_TYPES,
    SCHEMA,
    STATISTICS,
    TEST_TIME,
    Shown,
    drawn_log,
    log_dataset,
    shown_candidates,
    slow_numbers,
)
from tests.data_pipelines.same_store import said_of
from tests.data_pipelines.small_dataset import Rows, prepared, small_dataset
from tests.data_pipelines.test_interruptions import Interruption

SPLIT = FromTime(time=TEST_TIME, rule="from then on")

Numbers = Mapping[str, float | None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("statistics")
    return _prepare(drawn_log(), folder)


def _prepare(rows: Mapping[str, Rows], folder: Path, **options: Any) -> Store:
    made = log_dataset(rows, folder / "raw", split=SPLIT)
    return prepared(made, folder / "store", **options)


def _by_request(rows: Mapping[str, Rows]) -> dict[Any, list[Shown]]:
    """Returns the candidates of each request, both as a store has them."""
    log = shown_candidates(rows)
    # A store sorts by user, then by time, then by request.
    log.sort(key=lambda c: (c.request[0], c.request_time, c.request[1]))
    found: dict[Any, list[Shown]] = collections.defaultdict(list)
    for candidate in log:
        found[candidate.request].append(candidate)
    return found


def _numbers(
    store: Store, rows: Mapping[str, Rows]
) -> dict[Any, list[Numbers]]:
    """Returns the numbers of each request's candidates in a store."""
    names = [n.name for s in STATISTICS for n in s.numbers]
    requests = decode(store).requests
    return {
        key: [{n: values[n] for n in names} for values, _ in request.candidates]
        for key, request in zip(_by_request(rows), requests, strict=True)
    }


def _assert_equal(found: Numbers, expected: Numbers) -> None:
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert found[name] == np.float32(value), name


def test_numbers_are_those_of_the_slow_reference(store: Store) -> None:
    rows = drawn_log()
    log = shown_candidates(rows)
    found = _numbers(store, rows)
    seen = collections.Counter[str]()
    for key, candidates in _by_request(rows).items():
        for candidate, numbers in zip(candidates, found[key], strict=True):
            for statistic in STATISTICS:
                expected = slow_numbers(statistic, log, candidate)
                _assert_equal(numbers, expected)
                seen.update(n for n, v in expected.items() if v)
    assert len(seen) == len(found[key][0])
    assert min(seen.values()) > 20
    verify_store(store.path)


def test_mean_and_scale_are_those_of_training(store: Store) -> None:
    requests = [r for r in decode(store).requests if r.split == "train"]
    for field in store.schema.candidate_dense_fields[1:]:
        values = np.array(
            [v[field.name] for r in requests for v, _ in r.candidates], float
        )
        values = values[~np.isnan(values)]
        if field.transform == "log1p":
            values = np.log1p(values)
        assert field.mean == pytest.approx(values.mean())
        assert field.scale == pytest.approx(values.std())


@pytest.mark.parametrize(
    ("num_shards", "pairs", "options"),
    [
        (1, 7, {}),
        (3, 40, {"range_bytes": 1}),
        (17, 1 << 20, {}),
    ],
)
def test_shards_and_parts_change_nothing(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_shards: int,
    pairs: int,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(statistics_step, "PAIRS_OF_PART", pairs)
    other = _prepare(drawn_log(), tmp_path, num_shards=num_shards, **options)
    assert said_of(other) == said_of(store)
    assert other.manifest["statistics"] == store.manifest["statistics"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "store"]
    num_files = len(list(other.path.glob("statistics/thing/*.arrow")))
    assert (num_files > 3) == (pairs < 100)
    verify_store(other.path)


def test_interrupted_before_every_step_of_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds for every other step (`test_interruptions.py`)."""
    monkeypatch.setattr(statistics_step, "PAIRS_OF_PART", 30)
    one = SCHEMA.without_statistics().with_statistics(STATISTICS[:1])
    made = log_dataset(drawn_log(6), tmp_path / "raw", schema=one, split=SPLIT)
    interruption = Interruption(monkeypatch)
    steps: list[int] = []
    run = StatisticsStep.run

    def watched(self: StatisticsStep, *args: Any) -> Any:
        steps.append(interruption.num_steps)
        found = run(self, *args)
        steps.append(interruption.num_steps)
        return found

    def go(**options: Any) -> Store:
        return prepared(made, tmp_path / "store", num_shards=2, **options)

    with monkeypatch.context() as patch:
        patch.setattr(StatisticsStep, "run", watched)
        whole = said_of(go())
    assert steps[1] - steps[0] > 12
    for step in range(*steps):
        shutil.rmtree(tmp_path / "store")
        interruption.start(step)
        with pytest.raises(KeyboardInterrupt):
            go()
        interruption.start(None)
        assert said_of(go(resume=True)) == whole
        assert {path.name for path in tmp_path.iterdir()} == {"raw", "store"}
    verify_store(tmp_path / "store")


def test_every_hash_is_in_one_part() -> None:
    hashed = np.array([0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    for count in (1, 2, 3, 7, 64):
        found = [
            place
            for index in range(count)
            for place in range(
                *HashRange(index=index, count=count).rows(hashed).indices(6)
            )
        ]
        assert found == list(range(6))


def test_text_user_ids(tmp_path: Path, store: Store) -> None:
    rows = drawn_log()
    named = {
        name: [(f"ü-{'x' * user}", *rest) for user, *rest in table]
        for name, table in rows.items()
    }
    types = {n: {**t, "user_id": pa.string()} for n, t in LOG_TYPES.items()}
    schema = dataclasses.replace(
        SCHEMA,
        tables=(
            Table(name="user_id", value_type="string"),
            *SCHEMA.tables[1:],
        ),
    )
    made = small_dataset(
        named, tmp_path / "raw", types, schema=schema, split=SPLIT
    )
    text = prepared(made, tmp_path / "store", num_shards=2)
    verify_store(text.path)
    found = [r.candidates for r in decode(text).requests]
    assert found == [r.candidates for r in decode(store).requests]


def test_hashed_values_are_counted_raw(tmp_path: Path) -> None:
    """Values that share a row of a hashed table are two to a statistic."""
    hashed = Table(name="item", kind="hashed", size=3)
    tables = [hashed if t.name == "item" else t for t in SCHEMA.tables]
    schema = dataclasses.replace(SCHEMA, tables=tuple(tables))
    columns = []
    for name, used in (("plain", SCHEMA), ("hashed", schema)):
        made = log_dataset(
            drawn_log(), tmp_path / name / "raw", schema=used, split=SPLIT
        )
        (shard,) = prepared(made, tmp_path / name / "store").shards
        columns.append(shard.splits["test"].candidates)
    plain, found = columns
    assert set(found["thing"]) <= {0, 2}
    for statistic in STATISTICS:
        for number in statistic.numbers:
            np.testing.assert_array_equal(
                found[number.name], plain[number.name]
            )


# A number of a request knows nothing of its own bucket or later.


def _changed(rows: Mapping[str, Rows], time: int, kept: Any) -> dict[str, Rows]:
    """Returns a log that is another from `time` on, but for one request.

    Labels are turned, values changed, rows left out and new ones added.
    """
    random = np.random.default_rng(time)
    impressions = []
    for user, at, thing, price, label, request, kind in rows["impressions"]:
        row = (user, at, thing, price, label, request, kind)
        if at >= time:
            row = (user, at, thing, price, 1 - label, request, kind)
            if (user, request) != kept:
                if random.random() < 0.3:
                    continue
                row = (user, at, -20, price, 1 - label, request, "a")
        impressions.append(row)
    impressions += [(3, time, -20, 1.0, 1, 77, "a")] * 5
    impressions += [(3, END_TIME + 5, -20, 1.0, 1, 78, "a")]
    return {**rows, "impressions": impressions}


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.name)
def test_nothing_from_the_bucket_on_is_known(
    store: Store, tmp_path: Path, statistic: Any
) -> None:
    rows = drawn_log()
    before = _numbers(store, rows)
    names = [number.name for number in statistic.numbers]
    # One of the middle that has values which come again.
    key, asked = _some_request(rows)
    begin = asked.request_time // statistic.bucket * statistic.bucket
    changed = _changed(rows, begin - statistic.delay, key)
    after = _numbers(_prepare(changed, tmp_path), changed)
    num_compared = num_others = 0
    for other, candidates in _by_request(rows).items():
        for place, candidate in enumerate(candidates):
            if other == key or candidate.request_time < begin:
                unchanged = all(
                    c.time < begin - statistic.delay for c in candidates
                )
                if other != key and not unchanged:
                    continue
                num_compared += 1
                for name in names:
                    assert (
                        before[other][place][name]
                        == (after[other][place][name])
                    )
            elif other in after and place < len(after[other]):
                num_others += before[other][place] != after[other][place]
    assert num_compared > 20
    assert num_others > 5


def _some_request(rows: Mapping[str, Rows]) -> tuple[Any, Shown]:
    middle = (FIRST_TIME + END_TIME) // 2
    return next(
        (key, candidates[0])
        for key, candidates in _by_request(rows).items()
        if len(candidates) > 2
        and candidates[0].request_time > middle
        and None not in candidates[0].values.values()
    )


def test_what_follows_a_request_in_another_bucket_is_later(
    tmp_path: Path,
) -> None:
    """The second row of a request is shown when others have been asked."""
    rows: dict[str, Rows] = {
        "users": [],
        "behaviors": [],
        "impressions": [
            (1, 103, 5, 1.0, 1, 0, "a"),
            (1, 104, 5, 1.0, 1, 0, "a"),
            (2, 105, 5, 1.0, 0, 0, "a"),
            (2, 140, 5, 1.0, 0, 1, "a"),
        ],
    }
    store = _prepare(rows, tmp_path)
    found = _numbers(store, rows)
    assert [n["thing_impressions_all"] for n in found[1, 0]] == [0, 0]
    # The bucket of seconds 104 to 107 knows that of 100 to 103 alone.
    assert [n["thing_impressions_all"] for n in found[2, 0]] == [1]
    assert [n["thing_impressions_all"] for n in found[2, 1]] == [3]
    assert [n["thing_age"] for n in found[2, 1]] == [40]


# What else a store has of them.


def test_sampled_requests_have_the_numbers(store: Store) -> None:
    assert store.sampled_requests is not None
    sample = pq.read_table(store.sampled_requests).to_pylist()
    requests = [r for r in decode(store).requests if r.split == "test"]
    assert sorted(row["request"] for row in sample) == [*range(len(requests))]
    for row in sample:
        candidates = requests[row["request"]].candidates
        for field in store.schema.candidate_dense_fields:
            assert row[f"candidate_{field.name}"] == [
                values[field.name] for values, _ in candidates
            ]


def _counts(store: Store, name: str) -> Iterator[dict[str, Any]]:
    for path in sorted(store.path.glob(f"statistics/{name}/*.arrow")):
        with pa.OSFile(str(path), "rb") as file:
            yield from pa.ipc.open_file(file).read_all().to_pylist()


def test_counts_are_kept(store: Store) -> None:
    rows = drawn_log()
    for statistic in STATISTICS:
        expected: dict[Any, list[int]] = collections.defaultdict(lambda: [0, 0])
        for candidate in shown_candidates(rows):
            value = tuple(candidate.values[f] for f in statistic.fields)
            if None not in value:
                pair = (*value, candidate.time // statistic.bucket)
                expected[pair][0] += 1
                expected[pair][1] += candidate.label
        found = [tuple(row.values()) for row in _counts(store, statistic.name)]
        assert found == [(*k, *v) for k, v in sorted(expected.items())]
        assert store.manifest["statistics"][statistic.name] == {
            "values": len({pair[:-1] for pair in expected}),
            "pairs": len(expected),
        }


def test_a_click_more_is_another_content(store: Store, tmp_path: Path) -> None:
    rows = drawn_log()
    last = max(
        range(len(rows["impressions"])), key=lambda i: rows["impressions"][i][1]
    )
    rows["impressions"] = [
        (*row[:4], 1 - row[4], *row[5:]) if place == last else row
        for place, row in enumerate(rows["impressions"])
    ]
    other = _prepare(rows, tmp_path)
    contents = [s.manifest["content"].split("-") for s in (store, other)]
    differ = [a != b for a, b in zip(*contents, strict=True)]
    # behaviors, statistics, test, train, users, validation time
    assert differ == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("pattern", "column", "message"),
    [
        ("base_4.arrow", "impressions", "do not count the candidates"),
        ("base_4.arrow", "clicks", "do not count the positives"),
        ("base_4.arrow", "bucket", "`content` of the manifest is not"),
        ("thing/part*", "clicks", "`content` of the manifest is not"),
        ("late/part*", None, "late has no counts; prepare the data again"),
    ],
)
def test_altered_counts_are_found(
    store: Store, tmp_path: Path, pattern: str, column: str | None, message: str
) -> None:
    """Though the manifest says that the files are as written."""
    path = shutil.copytree(store.path, tmp_path / "store")
    manifest = json.loads((path / "manifest.json").read_text())
    (file,) = (path / "statistics").glob(pattern)
    name = file.relative_to(path).as_posix()
    if column is None:
        file.unlink()
        del manifest["files"][name]
    else:
        table = read_arrow(file)
        values = table[column].to_numpy().copy()
        values[0] += 1
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(values))
        write_arrow(file, table)
        manifest["files"] |= describe_files(path, [file])
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        verify_store(path)


def test_a_user_s_statistics_are_frozen_with_the_history(
    tmp_path: Path,
) -> None:
    rows = drawn_log()
    start = {(u, r): t for u, t, *_, r, _ in rows["impressions"]}
    # A store knows when a request was, and not when each of its rows.
    rows["impressions"] = [
        (user, start[user, request], *values, request, kind)
        for user, _, *values, request, kind in rows["impressions"]
    ]
    store = _prepare(rows, tmp_path)
    log = shown_candidates(rows)
    tested = [
        (key, candidates)
        for key, candidates in _by_request(rows).items()
        if candidates[0].request_time >= TEST_TIME
    ]
    first: dict[Any, int] = {}
    for (user, _), candidates in tested:
        first.setdefault(user, candidates[0].request_time)
    config = DataConfig(max_history=4)
    batches = Batches(store, "test", config, 400, None, frozen_history=True)
    plain = Batches(store, "test", config, 400, None)
    assert batches.num_batches == 1
    batch, as_it_was = batches.batch(0), plain.batch(0)
    num_frozen = 0
    for row, (key, candidates) in enumerate(tested):
        for place, candidate in enumerate(candidates):
            asked = dataclasses.replace(candidate, request_time=first[key[0]])
            for statistic in STATISTICS:
                is_own = statistic.name == "own"
                for name, value in slow_numbers(
                    statistic, log, asked if is_own else candidate
                ).items():
                    found = batch[f"candidate_{name}"][row, place]
                    expected = np.float32(np.nan if value is None else value)
                    np.testing.assert_equal(found, expected, name)
                    before = as_it_was[f"candidate_{name}"][row, place]
                    num_frozen += is_own and found != before
    assert num_frozen > 10


def test_described(store: Store) -> None:
    text = describe(store, StoreStatistics(store, max_history=7))
    assert all(len(line) < 80 for line in text.splitlines()[3:])
    lines = text[text.index("\nStatistics") :].split("\n")[2:]
    for statistic, line in zip(STATISTICS, lines, strict=False):
        counts = store.manifest["statistics"][statistic.name]
        assert line.split()[0] == f"{statistic.name}:"
        assert line.split()[-4:-2] == [
            str(counts["values"]),
            str(counts["pairs"]),
        ]
    assert lines[1].split()[-2:] == ["2s", "4s"]
    assert lines[2].startswith("  own: user_id x candidate.thing ")
