"""`[statistics.NAME]` in a schema file: what it becomes, what is refused."""

import pathlib
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_pipelines.candidate_statistics.asked_statistics import (
    with_asked_statistics,
)
from data_pipelines.prepare import Options, open_dataset, prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.statistic import Statistic
from tests.data_pipelines import raw_files
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.own_shop import SCHEMA, make, refused, replaced, write
from tests.data_pipelines.small_dataset import drawn_rows, small_dataset

STATISTICS = """
[statistics.thing]
of = "thing"
windows = ["1min", "all"]
bucket = "30s"
[statistics.mine]
of = ["user", "candidate.brand"]
counts = ["rate", "age"]
windows = ["90min"]
delay = "30min"
bucket = "30min"
prior = 2.5
[statistics.there]
of = ["user.country", "brand"]
counts = ["age"]
"""

EXPECTED = (
    Statistic(
        name="thing",
        fields=("candidate.thing",),
        windows=(60, None),
        bucket=30,
    ),
    Statistic(
        name="mine",
        fields=("user_id", "candidate.brand"),
        counts=("rate", "age"),
        windows=(5400,),
        bucket=1800,
        delay=1800,
        prior=2.5,
    ),
    Statistic(
        name="there",
        fields=("user.country", "candidate.brand"),
        counts=("age",),
        windows=(),
    ),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make(tmp_path_factory.mktemp("shop"), SCHEMA + STATISTICS)


def test_what_the_file_asks_for(store: Store) -> None:
    assert store.schema.statistics == EXPECTED
    assert [f.name for f in store.schema.candidate_dense_fields] == [
        "price",
        "thing_impressions_1min",
        "thing_impressions_all",
        "thing_clicks_1min",
        "thing_clicks_all",
        "thing_rate_1min",
        "thing_rate_all",
        "mine_rate_90min",
        "mine_age",
        "there_age",
    ]


def test_numbers_by_hand(store: Store) -> None:
    """Requests at 30, 60 and 90 s, in buckets of 30 s, and two days later."""
    found = {
        (r.time, v["thing"]): v
        for r in decode(store).requests
        for v, _ in r.candidates
    }
    (first, *_, last) = sorted(time for time, _ in found)
    third = first + 60
    assert found[first, 10]["thing_impressions_all"] == 0
    # Clicks and impressions: 1 of 2 at first, then 1 of 2.
    assert found[third, 10]["thing_impressions_1min"] == 1
    assert found[third, 10]["thing_clicks_1min"] == 1
    assert found[third, 10]["thing_rate_1min"] == pytest.approx(11 / 21)
    days_later = found[last - 86_400, 10]
    assert days_later["thing_impressions_1min"] == 0
    assert days_later["thing_impressions_all"] == 2
    # Nobody of the second user's country has seen anything; it is missing.
    assert days_later["there_age"] is None


def _open(tmp_path: pathlib.Path, asked: bool | None, schema: str) -> Any:
    (tmp_path / "shop.toml").write_text(schema)
    options = Options(schema_file=tmp_path / "shop.toml", statistics=asked)
    return open_dataset("parquet", write(tmp_path / "raw"), options).schema


def test_the_flag(tmp_path: pathlib.Path) -> None:
    for asked in (None, True):
        schema = _open(tmp_path, asked, SCHEMA + STATISTICS)
        assert schema.statistics == EXPECTED
    without = _open(tmp_path, False, SCHEMA + STATISTICS)
    assert without == _open(tmp_path, False, SCHEMA)
    with pytest.raises(InputError, match=r"has no section \[statistics\.NAME"):
        _open(tmp_path, True, SCHEMA)


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("of = 'thin'", ["there is no field 'thin'", "Did you mean 'thing'?"]),
        ("of = 'clicked'", ["'clicked' is the label", "Name a candidate"]),
        ("of = 'impressions.clicked'", ["'clicked' is the label of [impr"]),
        ("of = 'price'", ["'price' is a number", "Make it a candidate"]),
        ("of = 'doing'", ["'doing' is a behavior field", "not known of a"]),
        ("of = 'user'\nwindows = ['1h']", ["one must be of the candidate"]),
        ("of = ['thing', 'thing']\nwindows = ['1h']", ["`fields` must differ"]),
        (
            "of = ['thing', 'brand', 'user']\nwindows = ['1h']",
            ["must be one or two"],
        ),
        ("of = 3", ["`of` must be a list of texts in quotes. Received: 3"]),
        ("windows = ['1h']", ["statistics.x: `of` is missing"]),
        ("of = 'thing'\nwidows = []", ["unknown key 'widows'", "'windows'?"]),
        ("of = 'thing'", ["`windows` is missing", '"3d", "all"']),
        ("of = 'thing'\nwindows = '1h'", ["`windows` must be a list"]),
        (
            "of = 'thing'\nwindows = ['30min']",
            ["a window is at least as long as the bucket of 1h", "1800"],
        ),
        (
            "of = 'thing'\nwindows = ['90min']",
            ["a window must be a multiple of the bucket of 1h"],
        ),
        (
            "of = 'thing'\nwindows = ['1h']\ndelay = '5min'",
            ["`delay` must be a multiple of the bucket of 1h"],
        ),
        (
            "of = 'thing'\nwindows = ['1 hour']",
            ["`windows`: a span of time is", "'1 hour'"],
        ),
        (
            "of = 'thing'\nwindows = ['1d', '24h']",
            ["`windows` repeats a value"],
        ),
        ("of = 'thing'\nwindows = ['1h']\nbucket = '0h'", ["at least 1"]),
        ("of = 'thing'\nwindows = ['1h']\nbucket = 60", ["text in quotes"]),
        ("of = 'thing'\nwindows = ['1h']\nprior = 0", ["must be positive"]),
        ("of = 'thing'\nwindows = ['1h']\nprior = '1'", ["must be a number"]),
        (
            "of = 'thing'\nwindows = ['1h']\ncounts = ['click']",
            ["`counts` are among", "Did you mean 'clicks'?"],
        ),
        ("of = 'thing'\ncounts = []\nwindows = []", ["`counts` must be among"]),
    ],
)
def test_refused(
    tmp_path: pathlib.Path, section: str, parts: list[str]
) -> None:
    brand = 'brand = "items.brand"'
    schema = replaced(brand, f'{brand}\ndoing = "behaviors.at"')
    message = refused(tmp_path, f"{schema}[statistics.x]\n{section}\n")
    assert "shop.toml: statistics.x" in message
    for part in parts:
        assert part in message


def test_names_that_meet(tmp_path: pathlib.Path) -> None:
    section = '[statistics.thing]\nof = "thing"\nwindows = ["1h"]\n'
    schema = SCHEMA.replace("price =", "thing_rate_1h =") + section
    assert "repeat: thing_rate_1h" in refused(tmp_path, schema)
    message = refused(tmp_path, SCHEMA + "[statistics]\nx = 3\n")
    assert "`statistics.x` must be a section" in message


def test_what_follows_an_impression(tmp_path: pathlib.Path) -> None:
    zone, brand = "utc_offset_hours = 1", 'brand = "items.brand"'
    schema = replaced(
        *(zone, f'behaviors = "impressions"\n{zone}'),
        *("behaviors.sku", "impressions.sku"),
        *(brand, f'{brand}\ndone = "impressions.clicked"'),
    )
    start, end = schema.index("[behaviors]"), schema.index("[users]")
    schema = schema[:start] + schema[end:]
    message = refused(
        tmp_path, schema + "[statistics.x]\nof = 'done'\nwindows = ['1h']\n"
    )
    assert "'done' is a behavior field" in message
    assert "may follow the impression, as the label does" in message


def test_other_data_sets(tmp_path: pathlib.Path) -> None:
    raw = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    store = prepare(
        "movielens", raw, tmp_path / "store", options=Options(statistics=True)
    )
    names = [f.name for f in store.schema.candidate_dense_fields]
    assert "movie_rate_30d" in names
    assert "user_genres_rate_all" in names
    assert store.sampled_requests is not None
    columns = pq.read_schema(store.sampled_requests).names
    assert {f"candidate_{name}" for name in names} <= set(columns)
    other = small_dataset(drawn_rows(3))
    assert with_asked_statistics("eleme", other, None) == other
    assert with_asked_statistics("eleme", other, False) == other
    with pytest.raises(InputError, match="--statistics: eleme has none; alib"):
        with_asked_statistics("eleme", other, True)
