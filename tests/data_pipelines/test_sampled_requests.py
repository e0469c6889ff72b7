"""Which requests a store keeps as they were logged, and in which form."""

import collections
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.preparation import sampled_requests
from data_pipelines.preparation.sampled_requests import choose
from data_pipelines.stores.store import Store
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    reference,
    small_dataset,
)

REQUESTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 2**64 - 1)),
    unique_by=lambda request: request[1],
)


def _choose(requests: list[tuple[int, int]], count: int) -> list[int]:
    length, hashed = np.array(requests, np.uint64).reshape(-1, 2).T
    return choose(length.astype(np.int64), hashed, count).tolist()


def _slowly(requests: list[tuple[int, int]], count: int) -> list[int]:
    """Lets the classes take turns, one request at a time."""
    classes = collections.defaultdict(list)
    for place, (length, hashed) in enumerate(requests):
        classes[length.bit_length()].append((hashed, place))
    waiting = [sorted(classes[bits]) for bits in sorted(classes, reverse=True)]
    found = []
    while any(waiting):
        found += [queue.pop(0)[1] for queue in waiting if queue]
    return found[:count]


@hypothesis.given(requests=REQUESTS, count=st.integers(1, 12))
def test_classes_take_turns(
    requests: list[tuple[int, int]], count: int
) -> None:
    assert _choose(requests, count) == _slowly(requests, count)


@hypothesis.given(
    parts=st.lists(REQUESTS, max_size=4), count=st.integers(1, 12)
)
def test_part_by_part(parts: list[Any], count: int) -> None:
    whole = list({h: (n, h) for part in parts for n, h in part}.values())
    kept: list[tuple[int, int]] = []
    for part in parts:
        kept += [part[n] for n in _choose(part, count)]
        kept = list(dict.fromkeys(kept))
        kept = [kept[n] for n in _choose(kept, count)]
    if len({h for _, h in whole}) == sum(map(len, parts)):
        assert kept == [whole[n] for n in _choose(whole, count)]


ROWS = drawn_rows(23)
# Somebody without a history.
ROWS["behaviors"] = [row for row in ROWS["behaviors"] if row[0] != 5]
EXPECTED = reference(ROWS)
TEST = EXPECTED["requests"]["test"]


def _sample(store: Store) -> pa.Table:
    assert store.sampled_requests is not None
    return pq.read_table(store.sampled_requests)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("sampled")
    return prepared(small_dataset(ROWS, folder / "raw"), folder / "store")


def _logged(row: int, newest: int) -> dict[str, Any]:
    """Returns what the raw rows have of a test request."""
    request = TEST[row]
    past = request["past"][len(request["past"]) - newest :]
    profile = EXPECTED["profiles"].get(request["user"], {})
    return {
        "request": row,
        "request_time": request["time"],
        "user_user_id": request["user"],
        "user_age": profile.get("age"),
        "behavior_item": [b["item"] for b in past],
        "behavior_kind": [b["kind"] for b in past],
        "behavior_time": [b["time"] for b in past],
        "candidate_thing": [r["thing"] for r in request["rows"]],
        "candidate_price": [r["price"] for r in request["rows"]],
        "label": [r["label"] for r in request["rows"]],
    }


def test_values_are_those_of_the_log(store: Store) -> None:
    rows = _sample(store).to_pylist()
    num_requests = len(TEST)
    assert 50 < num_requests < 256
    assert sorted(row["request"] for row in rows) == [*range(num_requests)]
    for row in rows:
        expected = _logged(row["request"], len(row["behavior_time"]))
        assert row == expected
        assert len(row["behavior_time"]) == len(TEST[row["request"]]["past"])
    assert any(row["user_age"] is None for row in rows)
    assert any(None in row["behavior_item"] for row in rows)
    assert any(None in row["candidate_price"] for row in rows)
    assert any(not row["behavior_time"] for row in rows)


def test_fewer_are_the_first_of_more(store: Store, tmp_path: Path) -> None:
    made = small_dataset(ROWS, tmp_path / "raw")
    few = prepared(made, tmp_path / "few", num_shards=3, sample_requests=7)
    expected = _sample(store).slice(0, 7)
    assert _sample(few).drop_columns(["request"]) == expected.drop_columns(
        ["request"]
    )
    lengths = [len(times) for times in expected["behavior_time"].to_pylist()]
    classes = [length.bit_length() for length in lengths]
    # Every class once before any twice; of the longest there is one request.
    assert classes == [5, 4, 3, 2, 1, 0, 4]
    assert sum(len(request["past"]) >= 16 for request in TEST) == 1


def test_none_are_kept(store: Store, tmp_path: Path) -> None:
    made = small_dataset(ROWS, tmp_path / "raw")
    without = prepared(made, tmp_path / "none", sample_requests=0)
    assert without.sampled_requests is None
    assert not list(without.path.glob("*.parquet"))
    # To whatever compares them they are the same store.
    assert without.manifest["content"] == store.manifest["content"]


def test_long_histories_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_requests, "MOST_BEHAVIORS", 3)
    made = small_dataset(ROWS, tmp_path / "raw")
    rows = _sample(prepared(made, tmp_path / "store")).to_pylist()
    lengths = [len(row["behavior_time"]) for row in rows]
    assert set(lengths) == {0, 1, 2, 3}
    for row, length in zip(rows, lengths, strict=True):
        assert row == _logged(row["request"], length)
        assert length == min(len(TEST[row["request"]]["past"]), 3)
