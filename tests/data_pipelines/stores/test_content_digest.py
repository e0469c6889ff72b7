"""A change of any value is another digest; a change of shards is none."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.stores.content_digest import digest, shard_content
from data_pipelines.stores.shard import SPLITS, Shard
from data_pipelines.stores.store import Store
from tests.data_pipelines.small_dataset import (
    drawn_rows,
    prepared,
    small_dataset,
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    folder = tmp_path_factory.mktemp("digest")
    made = small_dataset(drawn_rows(9), folder / "raw")
    store: Store = prepared(made, folder / "store")
    return store.shards[0]


def _digest(*shards: Shard) -> str:
    return digest([shard_content(shard) for shard in shards])


def _with(shard: Shard, name: str, column: Any) -> Shard:
    """Returns a copy with one of `Shard.files` replaced."""
    part, _, field = name.partition("/")
    if part == "users":
        key = {"id": "user_id", "behavior_offset": "behavior_offset"}[field]
        return dataclasses.replace(shard, **{key: column})
    if name == "behaviors/time":
        return dataclasses.replace(shard, behavior_time=column)
    if part == "behaviors":
        behaviors = {**shard.behaviors, field: column}
        return dataclasses.replace(shard, behaviors=behaviors)
    requests = shard.splits[part]
    key = field.removeprefix("candidate_").removeprefix("user_")
    if field == "candidate_label":
        requests = dataclasses.replace(requests, label=column)
    elif field.startswith("user_"):
        users = {**requests.users, key: column}
        requests = dataclasses.replace(requests, users=users)
    elif field.startswith("candidate_") and field != "candidate_offset":
        candidates = {**requests.candidates, key: column}
        requests = dataclasses.replace(requests, candidates=candidates)
    else:
        requests = dataclasses.replace(requests, **{field: column})
    return dataclasses.replace(shard, splits={**shard.splits, part: requests})


def _names() -> list[str]:
    requests = (
        *("user", "user_user_id", "user_age", "time", "history_end"),
        *("candidate_offset", "candidate_thing", "candidate_price"),
        "candidate_label",
    )
    return [
        *("users/id", "users/behavior_offset"),
        *("behaviors/time", "behaviors/item", "behaviors/kind"),
        *(f"{split}/{name}" for split in SPLITS for name in requests),
    ]


def test_names_are_all_columns(shard: Shard) -> None:
    assert sorted(_names()) == sorted(shard.files())


@pytest.mark.parametrize("name", _names())
def test_every_value_of_every_column_counts(shard: Shard, name: str) -> None:
    before = _digest(shard)
    column = np.array(shard.files()[name])
    assert _digest(_with(shard, name, column)) == before
    places = np.arange(len(column))
    if name.endswith("_offset"):
        places = places[1:-1]  # the ends are 0 and the number of rows
    found = {before}
    for place in places:
        other = column.copy()
        if other.dtype == np.float32:
            other[place] = np.nextafter(
                np.nan_to_num(other[place], nan=7.0), np.float32(np.inf)
            )
        elif name.endswith("/user"):
            other[place] = (other[place] + 1) % shard.num_users
        else:
            other[place] += 1
        found.add(_digest(_with(shard, name, other)))
    # Each is another digest than all the others.
    assert len(found) == len(places) + 1


def test_order_within_a_user_counts(shard: Shard) -> None:
    before = _digest(shard)
    time = shard.behavior_time
    tied = np.flatnonzero(
        (time[1:] == time[:-1])
        & (shard.behaviors["item"][1:] != shard.behaviors["item"][:-1])
    )
    assert len(tied) > 5
    for place in tied:
        columns = {k: np.array(v) for k, v in shard.behaviors.items()}
        for column in columns.values():
            column[[place, place + 1]] = column[[place + 1, place]]
        other = dataclasses.replace(shard, behaviors=columns)
        assert _digest(other) != before


def test_order_of_candidates_counts(shard: Shard) -> None:
    before = _digest(shard)
    requests = shard.splits["train"]
    first = requests.candidate_offset[:-1][
        np.diff(requests.candidate_offset) > 1
    ]
    assert len(first) > 3
    for place in first:
        order = np.arange(requests.num_candidates)
        order[[place, place + 1]] = order[[place + 1, place]]
        swapped = dataclasses.replace(
            requests,
            candidates={k: v[order] for k, v in requests.candidates.items()},
            label=requests.label[order],
        )
        splits = {**shard.splits, "train": swapped}
        assert _digest(dataclasses.replace(shard, splits=splits)) != before


def test_bits_of_floats_count(shard: Shard) -> None:
    name = "train/candidate_price"
    zero = np.zeros(len(shard.files()[name]), np.float32)
    missing = np.full(len(zero), np.nan, np.float32)
    found = {_digest(_with(shard, name, c)) for c in (zero, -zero, missing)}
    assert len(found) == 3


def test_splits_are_told_apart(shard: Shard) -> None:
    train, test = (shard.splits[split] for split in SPLITS)
    other = dataclasses.replace(shard, splits={"train": test, "test": train})
    assert _digest(other) != _digest(shard)


def test_repeated_rows_do_not_cancel(shard: Shard) -> None:
    content = shard_content(shard)
    nothing = dict.fromkeys(content, 0)
    assert digest([content, nothing]) == digest([content])
    assert digest([content, content]) != digest([content])
    assert digest([content, content]) != digest([nothing])


def test_the_validation_time_counts(shard: Shard) -> None:
    content = [shard_content(shard)]
    found = {digest(content, time) for time in (None, 5, 6)}
    assert len(found) == 3


def test_shards_do_not_count(tmp_path: Path) -> None:
    made = small_dataset(drawn_rows(9), tmp_path / "raw")
    stores = [
        prepared(made, tmp_path / f"store-{num}", num_shards=num)
        for num in (1, 2, 9)
    ]
    digests = {_digest(*store.shards) for store in stores}
    assert digests == {_digest(*reversed(stores[2].shards))}
    contents = {
        store.manifest["content"].rpartition("-")[0] for store in stores
    }
    assert digests == contents
    assert _digest(*stores[2].shards[1:]) not in digests
