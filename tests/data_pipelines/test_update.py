"""Days that are added one by one, and what they must give."""

import dataclasses
import datetime
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.datasets.open_dataset import Options
from data_pipelines.preparation.known_values import KnownValues
from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines import decoded_store
from tests.data_pipelines.days import (
    SHOP,
    write_alibaba_days,
    write_shop_days,
)
from tests.data_pipelines.decoded_store import Request
from tests.data_pipelines.test_interruptions import (  # noqa: F401
    Interruption,
    interruption,
)

_FIRST_TEST = datetime.date(2017, 5, 11)


def _requests(store: Store) -> list[Request]:
    """Returns all requests as raw values, by user and time."""
    vocabularies = {
        t.name: decoded_store._values(store, t) for t in store.schema.tables
    }
    found: list[Request] = []
    for shard in store.shards:
        users = decoded_store._users(store, shard, vocabularies)
        for split in ("train", "test"):
            found += decoded_store._requests(
                store, shard, split, users, vocabularies
            )
    return sorted(found, key=lambda r: (r.user_id, r.time))


def _values_of(store: Store) -> dict[str, set[Any]]:
    return {
        t.name: set(decoded_store._values(store, t))
        for t in store.schema.tables
    }


@dataclasses.dataclass(frozen=True)
class Days:
    """A store of all days at once, and how those of each are added.

    Args:
        dataset: The data set.
        folders: Raw files of all days, and of each in turn.
        options: Of all preparations.
        at_once: The store of all days.
        first_options: Of the first day alone.
    """

    dataset: str
    folders: Sequence[Path]
    options: Options
    at_once: Store
    first_options: Options

    def begin(self, path: Path) -> Store:
        """Prepares the first day."""
        return prepare(
            self.dataset,
            self.folders[1],
            path,
            options=self.first_options,
            num_shards=2,
            can_grow=True,
        )

    def add(self, path: Path, number: int, **options: Any) -> Store:
        """Adds a day."""
        return prepare(
            self.dataset,
            self.folders[1 + number],
            path,
            options=dataclasses.replace(self.options, statistics=None),
            is_update=True,
            **options,
        )


@pytest.fixture(
    scope="module",
    params=[pytest.param("alibaba", marks=pytest.mark.slow), "parquet"],
)
def days(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Days:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "alibaba":
        folders = write_alibaba_days(folder)
        options = Options(statistics=True)
        first = dataclasses.replace(options, test_start=_FIRST_TEST)
    else:
        folders = write_shop_days(folder)
        (folder / "shop.toml").write_text(SHOP)
        options = Options(schema_file=folder / "shop.toml")
        # A first day has no day before its test.
        middle = "last_day = true", "test_start = 2020-09-14T00:01:00Z"
        (folder / "first.toml").write_text(SHOP.replace(*middle))
        first = Options(schema_file=folder / "first.toml")
    at_once = prepare(
        request.param, folders[0], folder / "store", options=options
    )
    return Days(request.param, folders, options, at_once, first)


@pytest.fixture(scope="module")
def stores(
    days: Days, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Store, dict[str, Any]]]:
    """The store after each day, with its vocabularies as they were then."""
    path = tmp_path_factory.mktemp("grown") / "store"
    found = []
    for number in range(3):
        store = days.add(path, number) if number else days.begin(path)
        verify_store(path)
        values = {
            t.name: decoded_store._values(store, t) for t in store.schema.tables
        }
        found.append((store, values))
    return found


def test_days_one_by_one_are_as_all_at_once(days: Days, stores: Any) -> None:
    store, _ = stores[-1]
    assert _values_of(store) == _values_of(days.at_once)
    expected, found = _requests(days.at_once), _requests(store)
    assert len(found) == len(expected) > 100
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs
    for name in ("train", "test"):
        counts = store.manifest["counts"], days.at_once.manifest["counts"]
        assert counts[0][name] == counts[1][name]
    assert store.manifest["split"] == days.at_once.manifest["split"]
    users = [s.manifest["counts"]["users"] for s in (store, days.at_once)]
    assert users[0] == users[1]


def test_ids_keep_their_numbers(stores: Any) -> None:
    grew = 0
    for (_, before), (_, after) in itertools.pairwise(stores):
        for name, values in before.items():
            assert after[name][: len(values)] == values
            grew += len(after[name]) > len(values)
    assert grew


def test_a_run_can_name_what_it_has_seen(stores: Any) -> None:
    contents = [[u.content for u in store.updates] for store, _ in stores]
    assert [len(own) for own in contents] == [1, 2, 3]
    assert contents[2][:2] == contents[1]
    assert contents[1][:1] == contents[0]
    assert len({store.manifest["content"] for store, _ in stores}) == 3


def test_counts_go_on_below_the_least(days: Days, stores: Any) -> None:
    """A value that is seen once on each of two days has its row."""
    store, _ = stores[-1]
    name = "adgroup_id" if days.dataset == "alibaba" else "thing"
    known = KnownValues.read(store.newest, store.schema.table(name))
    counts = known.values["count"].to_numpy()
    least = store.schema.table(name).min_count
    has_id = known.ids[2:] > 1
    np.testing.assert_array_equal(has_id, counts >= least)
    assert 0 < has_id.sum() < len(has_id)


def test_overlapping_days_are_refused(
    days: Days, stores: Any, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    shutil.copytree(stores[-1][0].path, path)
    with pytest.raises(InputError, match="the new days overlap what"):
        days.add(path, 2)
    assert {p.name for p in tmp_path.iterdir()} == {"store"}
    verify_store(path)
    # What was added before is not added again.
    assert len(days.add(path, 2, resume=True).updates) == 3


def test_the_test_is_of_new_days(days: Days, tmp_path: Path) -> None:
    store = days.begin(tmp_path / "store")
    first = store.schema.time_zone.moment(store.updates[0].begin_time).date()
    later = dataclasses.replace(
        days, options=dataclasses.replace(days.options, test_start=first)
    )
    with pytest.raises(InputError, match=r"is training\. Move it by --test_st"):
        later.add(store.path, 1)
    verify_store(store.path)


def test_other_fields_are_refused(
    days: Days, stores: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--update.* time_fields differ"):
        prepare(
            days.dataset,
            days.folders[3],
            stores[-1][0].path,
            options=dataclasses.replace(
                days.options, time_fields=["request_hour"]
            ),
            is_update=True,
        )


def test_what_cannot_grow(days: Days, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prepare it with --can_grow"):
        days.add(days.at_once.path, 2)
    with pytest.raises(InputError, match="--can_grow does not apply to eleme"):
        prepare("eleme", tmp_path, tmp_path / "store", can_grow=True)
    with pytest.raises(InputError, match="--update does not apply to ebnerd"):
        prepare("ebnerd", tmp_path, tmp_path / "store", is_update=True)


def _interrupt(
    days: Days, tmp_path: Path, stop: Interruption, steps: int
) -> None:
    begun, path = tmp_path / "begun", tmp_path / "store"
    days.begin(begun)
    shutil.copytree(begun, path)
    stop.start(None)
    whole = days.add(path, 1).manifest["content"]
    num_steps = stop.num_steps
    before = Store(begun).manifest["content"]
    for step in range(num_steps - 1, 0, -max(num_steps // steps, 1)):
        stop.start(None)
        shutil.rmtree(path)
        shutil.copytree(begun, path)
        stop.start(step)
        with pytest.raises(KeyboardInterrupt):
            days.add(path, 1)
        stop.start(None)
        assert Store(path).manifest["content"] in (whole, before)
        assert days.add(path, 1, resume=True).manifest["content"] == whole
        verify_store(path)
        assert {p.name for p in tmp_path.iterdir()} == {"begun", "store"}


def test_interrupted(
    days: Days,
    tmp_path: Path,
    interruption: Interruption,  # noqa: F811
) -> None:
    _interrupt(days, tmp_path, interruption, steps=2)


@pytest.mark.slow
def test_interrupted_before_every_step(
    days: Days,
    tmp_path: Path,
    interruption: Interruption,  # noqa: F811
) -> None:
    _interrupt(days, tmp_path, interruption, steps=1 << 30)
