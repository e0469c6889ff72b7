"""Logged requests as a client pads them, beside the ids of the store."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.requests.raw_tensors import MISSING_INTEGER
from export.requests.logged_requests import logged_batches
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    reference,
    small_dataset,
)

ROWS = drawn_rows(9)
TEST = reference(ROWS)["requests"]["test"]
CONFIG = DataConfig(
    max_history=9, length_buckets=(5,), candidate_buckets=(2, 3)
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    return prepared(small_dataset(ROWS, folder / "raw"), folder / "store")


def _batches(store, size=4):
    return list(logged_batches(store, CONFIG, size))


def _values(raw, row, name):
    """Returns the values of a list, without what is behind or before it."""
    return [None if v == MISSING_INTEGER else v for v in raw[name][row]]


def test_raw_values_are_those_of_the_log(store):
    seen = []
    for raw, ids in _batches(store):
        assert raw.keys() == ids.keys() - {"label", "candidate_mask"}
        for name, value in raw.items():
            assert value.shape == ids[name].shape, name
        for row, time in enumerate(raw["request_time"].tolist()):
            (number,) = (
                number
                for number, request in enumerate(TEST)
                if number not in seen
                and request["user"] == raw["user_user_id"][row]
                and request["time"] == time
                and _is_same(raw, ids, row, request)
            )
            seen.append(number)
    assert sorted(seen) == list(range(len(TEST)))


def _is_same(raw, ids, row, request):
    past, shown = request["past"][-CONFIG.max_history :], request["rows"]
    width, count = raw["behavior_time"].shape[1] - len(past), len(shown)
    prices = [np.nan if r["price"] is None else r["price"] for r in shown]
    return (
        raw["behavior_time"][row].tolist()
        == [0] * width + [b["time"] for b in past]
        and _values(raw, row, "behavior_item")[width:]
        == [b["item"] for b in past]
        and raw["behavior_kind"][row, width:].tolist()
        == [b["kind"] or "" for b in past]
        and _values(raw, row, "candidate_thing")[:count]
        == [r["thing"] for r in shown]
        and np.array_equal(
            raw["candidate_price"][row, :count], prices, equal_nan=True
        )
        and ids["candidate_mask"][row].sum() == count
        and ids["label"][row, :count].tolist() == [r["label"] for r in shown]
    )


@pytest.mark.parametrize("delay", [0, 1, 3, 100])
def test_what_was_known(store, delay):
    config = dataclasses.replace(CONFIG, history_delay=delay)
    lengths = []
    for raw, ids in logged_batches(store, config, 4):
        times = raw["behavior_time"]
        np.testing.assert_array_equal(times, ids["behavior_time"])
        latest = raw["request_time"][:, None] - delay
        assert ((times == 0) | (times <= latest)).all()
        lengths += (times > 0).sum(axis=1).tolist()
    known = [
        sum(b["time"] <= request["time"] - delay for b in request["past"])
        for request in TEST
    ]
    expected = [min(count, CONFIG.max_history) for count in known]
    assert lengths == sorted(expected, reverse=True)
    assert (max(lengths) > 0) == (delay < 100)


def test_of_a_sample_that_knows_too_little(store, monkeypatch):
    # As if it had cut histories at six behaviors, and more were older.
    module = "export.requests.logged_requests.MOST_BEHAVIORS"
    longest = max(len(request["past"]) for request in TEST)
    monkeypatch.setattr(module, longest)
    config = dataclasses.replace(CONFIG, history_delay=10**6)
    number = sum(
        len(raw["request_time"]) for raw, _ in logged_batches(store, config, 4)
    )
    cut = sum(len(request["past"]) == longest for request in TEST)
    assert number == len(TEST) - cut < len(TEST)


def test_all_of_a_sample_know_too_little(store, monkeypatch):
    monkeypatch.setattr("export.requests.logged_requests.MOST_BEHAVIORS", 0)
    config = dataclasses.replace(CONFIG, max_history=1, history_delay=10**6)
    monkeypatch.setattr(
        "export.requests.logged_requests.dataclasses.replace",
        lambda config, **_: config,
    )
    with pytest.raises(InputError, match=r"fewer than 1 of them are older"):
        list(logged_batches(store, config, 4))


def test_longest_histories_first(store):
    batches = _batches(store, 7)
    sizes = [len(batch.raw["request_time"]) for batch in batches]
    assert sum(sizes) == len(TEST)
    assert sizes[:-1] == [7] * (len(sizes) - 1)
    lengths = sorted((len(request["past"]) for request in TEST), reverse=True)
    found = [
        times
        for batch in batches
        for times in (batch.raw["behavior_time"] > 0).sum(axis=1).tolist()
    ]
    assert found == [min(length, CONFIG.max_history) for length in lengths]
    assert {b.raw["behavior_time"].shape[1] for b in batches} == {9, 5}


def test_store_that_keeps_none(tmp_path):
    made = small_dataset(ROWS, tmp_path / "raw")
    store = prepared(made, tmp_path / "store", sample_requests=0)
    with pytest.raises(InputError, match=r"store keeps no logged requests"):
        _batches(store)
