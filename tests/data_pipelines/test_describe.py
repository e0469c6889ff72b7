"""What a store is said to hold, against slow and plain counting."""

import collections
import copy
import dataclasses
import datetime
import itertools
import json
import zoneinfo
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from data_pipelines.description import store_picture
from data_pipelines.description.chunk_lengths import cut_into_chunks
from data_pipelines.description.describe_text import describe, duration, share
from data_pipelines.description.duration_counts import (
    CLASS_NAMES,
    DurationCounts,
)
from data_pipelines.description.integer_counts import IntegerCounts
from data_pipelines.description.periods import count_by_period
from data_pipelines.description.store_statistics import StoreStatistics
from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.store import Store
from sparsectr.time_zone import TimeZone
from tests import commands
from tests.data_pipelines.make_store import FIRST_TIME, make_store
from tests.reference.times import time_chunks

TEST_TIME = FIRST_TIME + 700_000
NUM_CHUNKS = 5

CLASS_STARTS = (
    *(0, 1, 3, 10, 30),
    *(60, 180, 600, 1800),
    *(3600, 10_800, 36_000),
    *(86_400, 259_200, 864_000, 2_592_000, 8_640_000),
)


def made_store(
    path: Path,
    seconds: int = 50_000,
    data_source: str = "raw files",
    **arguments: Any,
) -> Store:
    """A made store whose times lie `seconds` times as far apart."""
    make_store(path, **arguments)
    for file in path.glob("shard-*/*/time.npy"):
        time = np.load(file)
        np.save(file, FIRST_TIME + (time - FIRST_TIME) * seconds)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["data_source"] = data_source
    manifest["split"] = {"rule": "the last days", "test_time": TEST_TIME}
    manifest["schema"]["time_zone"] = dataclasses.asdict(TimeZone.fixed(480))
    (path / "manifest.json").write_text(json.dumps(manifest))
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(tmp_path_factory.mktemp("describe") / "store")


@pytest.fixture(scope="module")
def statistics(store: Store) -> StoreStatistics:
    return StoreStatistics(store, max_history=7, num_chunks=NUM_CHUNKS)


def day_of(time: int) -> datetime.date:
    zone = datetime.timezone(datetime.timedelta(hours=8))
    return datetime.datetime.fromtimestamp(time, zone).date()


def plain_requests(
    store: Store, split: str, delay: int = 1
) -> list[dict[str, Any]]:
    """The requests as Python values, with the history found from the times."""
    found = []
    for shard in store.shards:
        offset = shard.behavior_offset.tolist()
        requests = shard.splits[split]
        bounds = requests.candidate_offset.tolist()
        for row, user in enumerate(requests.user.tolist()):
            time = int(requests.time[row])
            behaviors = shard.behavior_time[offset[user] : offset[user + 1]]
            label = requests.label[bounds[row] : bounds[row + 1]]
            found.append(
                {
                    "user": int(shard.user_id[user]),
                    "time": time,
                    "history": [
                        b for b in behaviors.tolist() if b <= time - delay
                    ],
                    "same_second": time in behaviors.tolist(),
                    "labels": label.tolist(),
                }
            )
    return found


def counted(counts: IntegerCounts) -> dict[int, int]:
    return {i: n for i, n in enumerate(counts.counts.tolist()) if n}


def assert_durations(counts: DurationCounts, expected: list[int]) -> None:
    classes = [0] * len(CLASS_STARTS)
    for seconds in expected:
        classes[sum(start <= seconds for start in CLASS_STARTS) - 1] += 1
    assert counts.classes() == classes
    assert counts.total == len(expected)
    ordered = sorted(expected)
    for percent in range(101):
        rank = max(-(-percent * len(ordered) // 100), 1)
        value = ordered[rank - 1]
        if value >= 86_400:
            value -= value % 3600
        assert counts.percentile(percent) == value


@pytest.mark.parametrize(
    ("max_history", "block_rows", "delay"),
    [(1, 60, 0), (7, 1, 0), (1000, 10**6, 0), (7, 60, 20)],
)
def test_histories_and_candidates(store, max_history, block_rows, delay):
    statistics = StoreStatistics(
        store,
        max_history=max_history,
        history_delay=delay,
        block_rows=block_rows,
    )
    for split in SPLITS:
        requests = plain_requests(store, split, delay or 1)
        found = statistics.splits[split]
        lengths = [len(request["history"]) for request in requests]
        assert counted(found.history_length) == collections.Counter(lengths)
        assert found.behaviors_read == sum(
            len(request["history"][-max_history:]) for request in requests
        )
        same_second = sum(request["same_second"] for request in requests)
        assert found.num_same_second == same_second > 0
        assert counted(found.num_candidates) == collections.Counter(
            len(request["labels"]) for request in requests
        )
        times = [request["time"] for request in requests]
        assert (found.span.first, found.span.last) == (min(times), max(times))
        known = [request for request in requests if request["history"]]
        assert 0 < len(known) < len(requests)
        assert_durations(
            found.newest_age, [r["time"] - r["history"][-1] for r in known]
        )
        assert_durations(
            found.oldest_age,
            [r["time"] - r["history"][-max_history:][0] for r in known],
        )


@pytest.mark.parametrize("block_rows", [1, 60, 10**6])
def test_behaviors(store, block_rows):
    statistics = StoreStatistics(store, max_history=7, block_rows=block_rows)
    histories = [
        shard.behavior_time[start:end].tolist()
        for shard in store.shards
        for start, end in zip(
            shard.behavior_offset[:-1], shard.behavior_offset[1:], strict=True
        )
    ]
    assert statistics.num_users == len(histories)
    times = [time for history in histories for time in history]
    span = statistics.behavior_span
    assert (span.first, span.last) == (min(times), max(times))
    gaps = [
        int(gap) for times in histories for gap in np.diff(np.array(times, int))
    ]
    assert 0 in gaps
    assert max(gaps) > 86_400
    assert_durations(statistics.gap, gaps)


@pytest.mark.parametrize("max_history", [7, 1000])
@pytest.mark.parametrize("num_chunks", [1, NUM_CHUNKS])
@pytest.mark.parametrize("block_rows", [60, 10**6])
def test_chunks_are_those_of_the_model(
    store, max_history, num_chunks, block_rows
):
    statistics = StoreStatistics(
        store,
        max_history=max_history,
        num_chunks=num_chunks,
        block_rows=block_rows,
    )
    last = {}
    for split in SPLITS:
        for request in plain_requests(store, split):
            history = request["history"][-max_history:]
            known = last.get(request["user"], (0, []))
            last[request["user"]] = max(known, (request["time"], history))
    histories = [history for _, history in last.values() if history]
    short = [times for times in histories if len(times) < num_chunks]
    chunks = [time_chunks(times, num_chunks) for times in histories]
    lengths = [[end - start for start, end in ranges] for ranges in chunks]
    cuts = [
        min(times[end] - times[end - 1] for _, end in ranges[:-1])
        for times, ranges in zip(histories, chunks, strict=True)
        if len(ranges) == num_chunks > 1
    ]
    assert statistics.num_histories == len(histories)
    assert statistics.num_short_histories == len(short)
    assert counted(statistics.chunk_length) == collections.Counter(
        itertools.chain.from_iterable(lengths)
    )
    assert counted(statistics.largest_chunk) == collections.Counter(
        100 * max(found) // sum(found) for found in lengths
    )
    if cuts:
        assert_durations(statistics.shortest_cut, cuts)
    else:
        assert statistics.shortest_cut.total == 0


def test_chunks_of_equal_gaps_are_cut_at_the_newest():
    time = np.array([99, 1, 2, 3, 9, 10, 99])
    chunks = cut_into_chunks(time, np.array([1]), np.array([6]), 3)
    assert chunks.length.tolist() == [3, 1, 1]
    assert chunks.shortest_cut.tolist() == [1]
    assert chunks.largest.tolist() == [3]


@pytest.mark.parametrize("block_rows", [60, 10**6])
def test_fields(store, block_rows):
    statistics = StoreStatistics(store, max_history=7, block_rows=block_rows)
    values = collections.defaultdict(list)
    for shard in store.shards:
        for name, ids in shard.behaviors.items():
            for time, value in zip(
                shard.behavior_time.tolist(), ids.tolist(), strict=True
            ):
                split = "train" if time < TEST_TIME else "test"
                values[f"behavior_{name}", split].append(value)
        for split, requests in shard.splits.items():
            for name, ids in requests.users.items():
                values[f"user_{name}", split] += ids.tolist()
            for name, found in requests.candidates.items():
                values[f"candidate_{name}", split] += found.tolist()
    assert len(values) == 2 * len(statistics.fields)
    for (name, split), expected in values.items():
        found = statistics.fields[name][split]
        is_dense = name == "candidate_price"
        missing = [x != x if is_dense else x == 0 for x in expected]
        unknown = [x == 1 and not is_dense for x in expected]
        assert found.rows == len(expected)
        assert found.missing == sum(missing), name
        assert found.out_of_vocabulary == sum(unknown), name
    assert statistics.fields["candidate_price"]["test"].missing > 0
    assert statistics.fields["user_kind"]["test"].missing > 0
    assert statistics.fields["user_kind"]["test"].out_of_vocabulary > 0


def test_without_a_test_time_behaviors_are_for_training(tmp_path):
    store = make_store(tmp_path / "store")
    statistics = StoreStatistics(store, max_history=7)
    found = statistics.fields["behavior_shop"]
    assert found["train"].rows == sum(s.num_behaviors for s in store.shards)
    assert found["test"].rows == 0


@pytest.mark.parametrize(
    ("seconds", "unit", "length"),
    [(50_000, "day", 10), (500_000, "month", 7), (20_000_000, "year", 4)],
)
def test_periods(tmp_path, seconds, unit, length):
    store = made_store(tmp_path / "store", seconds)
    periods = count_by_period(StoreStatistics(store, max_history=7))
    assert periods.unit == unit
    expected = collections.defaultdict(collections.Counter)
    for shard in store.shards:
        for time in shard.behavior_time.tolist():
            expected["behaviors"][str(day_of(time))[:length]] += 1
    for split in SPLITS:
        for request in plain_requests(store, split):
            period = str(day_of(request["time"]))[:length]
            labels = request["labels"]
            expected[f"requests {split}"][period] += 1
            expected[f"candidates {split}"][period] += len(labels)
            expected[f"clicks {split}"][period] += sum(labels)
    names = [str(edge)[:length] for edge in periods.edges[:-1]]
    assert len(set(names)) == len(names)
    series = {"behaviors": periods.behaviors}
    for split in SPLITS:
        series[f"requests {split}"] = periods.requests[split]
        series[f"candidates {split}"] = periods.candidates[split]
        series[f"clicks {split}"] = periods.clicks[split]
    for name, counts in series.items():
        found = dict(zip(names, counts.tolist(), strict=True))
        assert found == {day: expected[name][day] for day in names}, name
        assert counts.sum() == expected[name].total()


def test_days_by_the_calendar_of_a_place(tmp_path):
    """No fixed offset counts them alike."""
    make_store(tmp_path / "store")
    change = 1_698_541_200  # 2023-10-29 01:00 UTC, when clocks go back
    behavior_times = []
    for file in tmp_path.glob("store/shard-*/*/time.npy"):
        # From some days before the change to some days after it.
        time = change + (np.load(file) - FIRST_TIME - 20) * 10_800
        np.save(file, time)
        if file.parent.name == "behaviors":
            behavior_times += time.tolist()
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    zone = TimeZone.named("Europe/Copenhagen")
    manifest["schema"]["time_zone"] = dataclasses.asdict(zone)
    (tmp_path / "store/manifest.json").write_text(json.dumps(manifest))
    statistics = StoreStatistics(Store(tmp_path / "store"), max_history=7)
    calendar = zoneinfo.ZoneInfo("Europe/Copenhagen")
    expected = collections.Counter(
        str(datetime.datetime.fromtimestamp(time, calendar).date())
        for time in behavior_times
    )
    periods = count_by_period(statistics)
    names = periods.edges[:-1].astype(str).tolist()
    found = dict(zip(names, periods.behaviors.tolist(), strict=True))
    assert found == {name: expected[name] for name in names}
    assert sum(found.values()) == len(behavior_times)
    assert min(behavior_times) < change < max(behavior_times)
    for hours in (1, 2):
        local = np.array(behavior_times, "M8[s]") + np.timedelta64(hours, "h")
        days = local.astype("M8[D]").astype(str).tolist()
        assert collections.Counter(days) != expected, hours


def test_a_day_before_1970(tmp_path):
    """In a time zone west of Greenwich the first seconds are of 1969."""
    make_store(tmp_path / "store")
    for file in tmp_path.glob("store/shard-*/*/time.npy"):
        np.save(file, np.load(file) - FIRST_TIME + 1)
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    manifest["schema"]["time_zone"] = dataclasses.asdict(TimeZone.fixed(-300))
    (tmp_path / "store/manifest.json").write_text(json.dumps(manifest))
    statistics = StoreStatistics(Store(tmp_path / "store"), max_history=7)
    edges = count_by_period(statistics).edges
    assert edges.astype(str).tolist() == ["1969-12-31", "1970-01-01"]


@pytest.mark.parametrize(
    "argument", [{"max_history": 0}, {"num_chunks": 0}, {"block_rows": 0}]
)
def test_arguments_out_of_range(store, argument):
    with pytest.raises(ValueError, match=f"`{next(iter(argument))}` must be"):
        StoreStatistics(store, **{"max_history": 7, **argument})


def test_integer_counts():
    counts = IntegerCounts()
    assert counts.percentile(50) is None
    counts.add(np.array([3, 1]))
    counts.add(np.array([9, 0, 3]), np.array([1, 5, 1]))
    assert counts.counts.tolist() == [5, 1, 0, 2, 0, 0, 0, 0, 0, 1]
    assert (counts.total, counts.sum) == (9, 16)
    assert [counts.percentile(p) for p in (0, 55, 56, 100)] == [0, 0, 1, 9]
    assert (counts.between(1, 9), counts.between(1)) == (3, 4)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 9, "0"),
        (1, 9999, "<0.1 %"),
        (1, 1000, "0.1 %"),
        (1, 3, "33.3 %"),
        (9998, 9999, ">99.9 %"),
        (9, 9, "100 %"),
    ],
)
def test_share(part, whole, text):
    assert share(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1.0 min"),
        (119, "1.9 min"),
        (3599, "59 min"),
        (86_399, "23 h"),
        (86_400, "1.0 d"),
        (86_400 * 1234, "1,234 d"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_class_names_say_where_classes_begin():
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    for name, start in zip(CLASS_NAMES, CLASS_STARTS, strict=True):
        first, unit = name.split()[:2]
        assert int(first.split("-")[0]) * units[unit] == start


def test_text(store, statistics):
    lines = describe(store, statistics).splitlines()
    assert max(len(line) for line in lines) == 79
    assert all(line == line.rstrip() for line in lines)
    assert lines[0] == "made (raw files)"
    assert lines[1] == f"store: {store.path}"
    assert lines[3] == "split: the last days"
    rows = [line.split() for line in lines]
    requests = {split: plain_requests(store, split) for split in SPLITS}
    counts = [len(requests[split]) for split in SPLITS]
    assert ["requests", *map(str, counts)] in rows
    empty = [
        sum(not request["history"] for request in requests[split])
        for split in SPLITS
    ]
    shares = map(share, empty, counts)
    assert f"requests without history {' '.join(shares)}".split() in rows
    lengths = sorted(len(r["history"]) for r in requests["test"])
    middle = lengths[(len(lengths) - 1) // 2]
    row = next(row for row in rows if row[:3] == ["history", "length,", "test"])
    assert row[3:] == [str(n) for n in (0, 0, middle, *row[6:8], lengths[-1])]
    assert ["By", "day", "behaviors", *SPLITS, *SPLITS] in rows
    first = day_of(FIRST_TIME)
    behaviors = [
        time
        for shard in store.shards
        for time in shard.behavior_time.tolist()
        if day_of(time) == first
    ]
    of_day = {
        split: [r for r in requests[split] if day_of(r["time"]) == first]
        for split in SPLITS
    }
    labels = {
        split: [label for r in of_day[split] for label in r["labels"]]
        for split in SPLITS
    }
    numbers = [len(behaviors), *(len(of_day[split]) for split in SPLITS)]
    rates = [share(sum(labels[s]), len(labels[s])) for s in SPLITS]
    cells = [first, *(number or "-" for number in numbers), *rates]
    row = " ".join(map(str, cells)).split()
    assert row in rows
    assert any(row[:2] == ["candidate_price", "dense"] for row in rows)
    assert any(row[:2] == ["behavior_serial", "90,000"] for row in rows)


def test_text_says_what_a_log_left_out_and_what_is_computed(store, statistics):
    schema = dataclasses.replace(
        store.schema,
        negative_rate=0.125,
        time_fields=("behavior_hour", "request_hour"),
    )
    other = copy.copy(store)
    other.schema = schema
    lines = describe(other, statistics).splitlines()
    assert "time fields: behavior_hour, request_hour" in lines
    kept = "negatives: the log has 12.5 % of them; rates below are the log's"
    assert kept in lines


def test_picture_shows_the_shares(store, statistics):
    panels = store_picture.picture(store, statistics).axes
    titles = [panel.get_title() for panel in panels]
    assert titles == [
        "History length at request",
        "Candidates of a request",
        "Gaps between neighboring behaviors of a user",
        "Age of the newest and of the oldest behavior read",
        "Behaviors by day",
        "Requests by day",
        "Click rate by day",
        "Missing values",
        "Out of vocabulary",
    ]
    assert all(panel.get_xlabel() for panel in panels)
    assert all(panel.get_ylim()[0] == 0 for panel in panels[:7])
    assert all(panel.get_xlim()[0] == 0 for panel in panels[7:])
    shares = [panels[place].get_yticks() for place in (0, 1, 2, 3, 6)]
    shares += [panel.get_xticks() for panel in panels[7:]]
    assert all(ticks.max() <= 1 for ticks in shares)
    names = [label.get_text() for label in panels[0].get_xticklabels()]
    assert names == ["0", "1", "2-3", "4-7", "8-15", "16-31"]
    for bars, split in zip(panels[0].containers, SPLITS, strict=True):
        lengths = [len(r["history"]) for r in plain_requests(store, split)]
        heights = [
            np.mean([low <= length < high for length in lengths])
            for low, high in [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32)]
        ]
        np.testing.assert_allclose([bar.get_height() for bar in bars], heights)
    for panel in panels[:4]:
        bars = [bar for series in panel.containers for bar in series]
        starts = sorted(bar.get_x() for bar in bars)
        assert np.diff(starts).min() > bars[0].get_width() - 1e-9
    labels = [label.get_text() for label in panels[7].get_yticklabels()]
    assert labels[0] == "user_user (70,000)"
    assert labels[-1] == "candidate_price (dense)"


def test_text_and_picture_say_that_a_sample_is_synthetic(tmp_path):
    store = made_store(tmp_path / "store", data_source="synthetic sample")
    statistics = StoreStatistics(store, max_history=7)
    title = "made (SYNTHETIC SAMPLE, not real data)"
    assert describe(store, statistics).startswith(f"{title}\n")
    figure = store_picture.picture(store, statistics)
    place = f"{store.path}, split: the last days"
    assert figure.get_suptitle().startswith(f"{title}\n{place}\n")


@pytest.mark.parametrize("users_of_shards", [(0,), (5, 0, 3)])
def test_small_stores_are_described_and_drawn(tmp_path, users_of_shards):
    store = made_store(tmp_path / "store", users_of_shards=users_of_shards)
    statistics = StoreStatistics(store, max_history=7)
    assert f"{sum(users_of_shards)} users" in describe(store, statistics)
    store_picture.draw(store, statistics, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_picture_is_written_whole_or_not_at_all(
    store, statistics, tmp_path, monkeypatch
):
    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    output = tmp_path / "store.png"
    output.write_bytes(b"old")
    with output.open("rb") as reader, monkeypatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            store_picture.draw(store, statistics, output)
        patch.undo()
        assert output.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [output]
        # Replaced, not written over: who reads the old one has it whole.
        store_picture.draw(store, statistics, output)
        assert reader.read() == b"old"


def test_command_prints_and_draws(store, tmp_path, command):
    output = tmp_path / "store.png"
    done = command(
        "data_pipelines.describe",
        f"--data_dir={store.path}",
        f"--output={output}",
        "--max_history=7",
        "--history_delay=90",
    )
    assert done.returncode == 0, done.stderr
    statistics = StoreStatistics(store, max_history=7, history_delay=90)
    text = describe(store, statistics)
    assert "  (what is newer than 1.5 min at a request is no part of" in text
    assert done.stdout.startswith(text)
    assert list(tmp_path.iterdir()) == [output]
    picture = matplotlib.image.imread(output)
    width, height = store_picture.SIZE
    assert picture.shape[:2] == (height, width)
    assert picture[..., :3].std() > 0.1


@pytest.mark.parametrize(
    ("dataset", "limit"), [("kuairand", "32"), ("unheard_of", "1,024")]
)
def test_command_reads_as_much_as_the_recipe(dataset, limit, tmp_path, command):
    made_store(tmp_path / "store")
    file = tmp_path / "store" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "dataset": dataset}))
    done = command("data_pipelines.describe", f"--data_dir={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert f"more than {limit}" in done.stdout
    assert f"store: {tmp_path}/store\n" in done.stdout


def test_command_without_matplotlib(store, tmp_path):
    # As if it were not installed, whatever is installed here.
    (tmp_path / "bare.py").write_text(
        "import runpy, sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'matplotlib':\n"
        "            raise ModuleNotFoundError('No such module', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "runpy.run_module('data_pipelines.describe', run_name='__main__',\n"
        "                 alter_sys=True)\n"
    )
    done = commands.run(
        "bare", f"--data_dir={store.path}", "--output=a.png", cwd=tmp_path
    )
    # Before the work, not after it.
    assert done.stdout == ""
    commands.assert_refused(done, "pip install 'sparsectr[plots]'")
    assert [path.name for path in tmp_path.iterdir()] == ["bare.py"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data_dir=nothing"], "nothing is not a store"),
        (["--data_dir=nothing", "--output=a.jpg"], "must end in .png"),
        (["--data_dir=nothing", "--output=b/a.png"], "no folder b"),
        (["--data_dir=nothing", "--output={folder}"], "is a folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, command, flags, message):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    flags = [flag.format(folder=folder) for flag in flags]
    done = command("data_pipelines.describe", *flags)
    commands.assert_refused(done, message)
    assert done.stdout == ""


def test_importing_needs_neither_matplotlib_nor_tensorflow(tmp_path):
    (tmp_path / "imports.py").write_text(
        "import data_pipelines.describe, sys\n"
        "from absl import flags\n"
        "assert 'data_dir' not in flags.FLAGS\n"
        "assert not {'matplotlib', 'tensorflow'} & sys.modules.keys()\n"
    )
    done = commands.run("imports", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
