"""The synthetic sample has the form and the statistics it claims."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines import synthetic_alibaba
from data_pipelines.synthetic import synthetic_interests
from data_pipelines.synthetic.synthetic_catalog import draw_catalog
from data_pipelines.synthetic.synthetic_interests import Users
from data_pipelines.synthetic_alibaba import SyntheticLogs, write_sample
from sparsectr.errors import InputError

HEADERS = {
    "raw_sample.csv": b"user,time_stamp,adgroup_id,pid,nonclk,clk\n",
    "ad_feature.csv": b"adgroup_id,cate_id,campaign_id,customer,brand,price\n",
    "user_profile.csv": (
        b"userid,cms_segid,cms_group_id,final_gender_code,age_level,"
        b"pvalue_level,shopping_level,occupation,new_user_class_level \n"
    ),
    "behavior_log.csv": b"user,time_stamp,btag,cate,brand\n",
}
LOG_START, LOG_END = 1492790400, 1494691200
SAMPLE_START, SAMPLE_END = 1494000000, 1494691200
UTC_OFFSET = 8 * 3600


@pytest.fixture(scope="module")
def logs() -> SyntheticLogs:
    return synthetic_alibaba.simulate(num_users=2000, seed=0)


@pytest.fixture(scope="module")
def sample(logs: SyntheticLogs) -> pd.DataFrame:
    frame = logs.raw_sample.to_pandas()
    ads = logs.ad_feature.to_pandas().set_index("adgroup_id")
    frame["cate"] = ads["cate_id"].loc[frame["adgroup_id"]].to_numpy()
    return frame


@pytest.fixture(scope="module")
def clean_log(logs: SyntheticLogs) -> pd.DataFrame:
    """The behaviors without repeated rows and impossible times, sorted."""
    log = logs.behavior_log.to_pandas().drop_duplicates()
    log = log[log["time_stamp"].between(LOG_START, LOG_END - 1)]
    return log.sort_values(["user", "time_stamp"], ignore_index=True)


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "raw"
    write_sample(folder, num_users=40, seed=3)
    return folder


def test_writes_four_files_and_the_marker_and_nothing_else(raw_dir):
    names = {path.name for path in raw_dir.iterdir()}
    assert names == {*HEADERS, synthetic_alibaba.MARKER}
    assert [path.name for path in raw_dir.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize("name", HEADERS)
def test_bytes_have_the_raw_form(raw_dir, name):
    content = (raw_dir / name).read_bytes()
    header = HEADERS[name]
    assert content.startswith(header)
    assert content.endswith(b"\n")
    assert content.isascii()
    assert b'"' not in content
    assert b"\r" not in content
    lines = content.splitlines()
    assert len(lines) > 30
    assert {line.count(b",") for line in lines} == {header.count(b",")}


def test_rows_look_like_the_published_examples(raw_dir):
    patterns = {
        "raw_sample.csv": r"\d+,149\d{7},\d+,4305(48|39)_1007,(1,0|0,1)",
        "ad_feature.csv": r"\d+,\d+,\d+,\d+,(\d+|NULL),\d+\.\d{1,2}",
        "user_profile.csv": (
            r"\d+,\d+,\d+,[12],[0-6],[1-3]?,[1-3],[01],[1-4]?"
        ),
        "behavior_log.csv": r"\d+,-?\d+,(pv|cart|fav|buy),\d+,\d+",
    }
    for name, pattern in patterns.items():
        rows = pd.Series((raw_dir / name).read_text().splitlines()[1:])
        assert rows.str.fullmatch(pattern).all(), name


def test_same_seed_same_bytes_other_seed_other(raw_dir, tmp_path):
    write_sample(tmp_path / "same", num_users=40, seed=3)
    write_sample(tmp_path / "other", num_users=40, seed=4)
    for name in HEADERS:
        content = (raw_dir / name).read_bytes()
        assert content == (tmp_path / "same" / name).read_bytes()
        assert content != (tmp_path / "other" / name).read_bytes()


def _run(repository: Path, *arguments: str):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "data_pipelines.synthetic_alibaba",
            *arguments,
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_makes_the_same_files_and_says_what_they_are(
    raw_dir, repository, tmp_path
):
    result = _run(
        repository, f"--raw_dir={tmp_path / 'a'}", "--num_users=40", "--seed=3"
    )
    assert (result.returncode, result.stderr) == (0, "")
    for path in raw_dir.iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()
    text = (tmp_path / "a" / synthetic_alibaba.MARKER).read_text()
    assert text == result.stdout
    assert text.startswith("These files are synthetic.")
    # The words that make them again.
    assert text.endswith("synthetic_alibaba --num_users=40 --seed=3\n")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--num_users=9", "--num_users must be at least 10. Received: 9"),
        ("--seed=-1", "--seed must be at least 0. Received: -1"),
        ("--raw_dir=setup.py", "setup.py exists and is not a folder"),
        ("--users=5", "users"),
    ],
)
def test_command_refuses_in_one_line(repository, tmp_path, argument, message):
    result = _run(repository, f"--raw_dir={tmp_path / 'a'}", argument)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_fills_an_empty_folder_but_no_other(tmp_path):
    write_sample(tmp_path / "empty", num_users=10)
    kept = (tmp_path / "empty" / "raw_sample.csv").read_bytes()
    with pytest.raises(InputError, match="empty exists and is not empty"):
        write_sample(tmp_path / "empty", num_users=10, seed=1)
    assert (tmp_path / "empty" / "raw_sample.csv").read_bytes() == kept


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(path: Path, table: pa.Table) -> None:
        path.write_bytes(b"user,")
        raise OSError("No space left on device")

    monkeypatch.setattr(synthetic_alibaba, "_write_csv", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_sample(tmp_path / "raw", num_users=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 9}, "at least 10. Received: num_users=9"),
        ({"num_users": 10, "seed": -1}, "negative. Received: seed=-1"),
    ],
)
def test_rejects_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_sample(tmp_path / "raw", **arguments)


def _assert_share(condition, share: float) -> None:
    """Asserts a share to four standard errors of sampling."""
    condition = np.asarray(condition)
    margin = 4.0 * np.sqrt(share * (1.0 - share) / len(condition))
    assert abs(condition.mean() - share) < margin


def test_click_rates_and_placements(sample):
    assert (sample["clk"] + sample["nonclk"] == 1).all()
    _assert_share(sample["clk"] == 1, 0.0514)
    for pid, share, rate in [
        ("430548_1007", 0.620, 0.0501),
        ("430539_1007", 0.380, 0.0536),
    ]:
        chosen = sample["pid"] == pid
        assert abs(chosen.mean() - share) < 0.03
        _assert_share(sample["clk"][chosen] == 1, rate)


def test_request_shows_1_to_16_ads_in_one_placement(sample):
    requests = sample.groupby(["user", "time_stamp"])
    assert set(requests.size()) == set(range(1, 17))
    assert (requests["pid"].nunique() == 1).all()
    assert not sample.duplicated(["user", "time_stamp", "adgroup_id"]).any()
    assert 5.0 < len(requests) / 2000 < 7.5


def test_behavior_types_repeats_and_impossible_times(logs, clean_log):
    raw = logs.behavior_log.to_pandas()
    for btag, share in zip(
        ("pv", "cart", "fav", "buy"),
        (0.95, 0.0237, 0.0138, 0.0125),
        strict=True,
    ):
        _assert_share(clean_log["btag"] == btag, share)
    assert abs(raw.duplicated().mean() - 0.0706) < 0.001
    impossible = ~raw["time_stamp"].between(LOG_START, LOG_END - 1)
    assert 0 < impossible.mean() < 1e-4
    assert (raw["time_stamp"] <= 0).any()
    assert (raw["time_stamp"] > LOG_END + 86400).any()
    assert clean_log.duplicated(["user", "time_stamp"]).any()


def test_missing_values_have_their_shares(logs, sample):
    ads = logs.ad_feature.to_pandas()
    assert ads["adgroup_id"].is_unique
    _assert_share(ads["brand"] == "NULL", 0.2909)
    profile = logs.user_profile.to_pandas()
    assert profile["userid"].is_unique
    _assert_share(profile["pvalue_level"].isna(), 0.5424)
    _assert_share(profile["new_user_class_level "].isna(), 0.3249)
    assert (
        profile.drop(columns=["pvalue_level", "new_user_class_level "])
        .notna()
        .all(axis=None)
    )
    users = sample["user"].drop_duplicates()
    assert abs((~users.isin(profile["userid"])).mean() - 0.06) < 0.02


def test_history_lengths_follow_the_published_quintiles(sample, clean_log):
    lengths = clean_log.groupby("user").size()
    shown = sample["user"].map(lengths).fillna(0)
    medians = np.quantile(shown, [0.1, 0.3, 0.5, 0.7, 0.9])
    published = np.array([171, 414, 698, 1130, 2163])
    np.testing.assert_allclose(medians, published, rtol=0.25)
    assert shown.min() == 0
    assert 500 < lengths.mean() < 700
    assert lengths.max() > 3000


def test_times_cover_22_and_8_days(sample, clean_log):
    log_days = (clean_log["time_stamp"] - LOG_START) // 86400
    assert set(log_days) == set(range(22))
    assert sample["time_stamp"].between(SAMPLE_START, SAMPLE_END - 1).all()
    sample_days = (sample["time_stamp"] - SAMPLE_START) // 86400
    assert set(sample_days) == set(range(8))
    assert sample_days.value_counts(normalize=True).min() > 0.08


def test_traffic_has_a_daily_and_a_weekly_rhythm(clean_log):
    local = clean_log["time_stamp"] + UTC_OFFSET
    by_hour = (local % 86400 // 3600).value_counts().sort_index()
    assert by_hour.idxmax() in (20, 21, 22)
    assert by_hour.idxmin() in (3, 4, 5)
    assert by_hour.max() > 8 * by_hour.min()
    date = pd.to_datetime(local, unit="s")
    # Three whole weeks, so that each weekday occurs as often.
    weeks = date < pd.Timestamp("2017-05-13")
    by_weekday = date[weeks].dt.day_of_week.value_counts().sort_index()
    assert by_weekday[5:].mean() > 1.05 * by_weekday[:5].mean()


def test_gaps_are_those_of_sessions(clean_log):
    gap = clean_log.groupby("user")["time_stamp"].diff().dropna()
    within = gap[gap < 1800]
    between = gap[gap >= 1800]
    assert 8 < len(gap) / len(between) < 40
    assert 10 < within.median() < 60
    assert within.max() <= 600
    assert 3 * 3600 < between.median() < 2 * 86400
    assert (between > 86400).mean() > 0.1


def test_ids_have_a_long_tail(logs, sample, clean_log):
    def share_of_top_tenth(column: pd.Series) -> float:
        counts = column.value_counts(normalize=True)
        return counts.iloc[: len(counts) // 10].sum()

    assert share_of_top_tenth(clean_log["cate"]) > 0.33
    assert share_of_top_tenth(clean_log["brand"]) > 0.35
    assert share_of_top_tenth(sample["adgroup_id"]) > 0.3
    impressions = sample["adgroup_id"].value_counts()
    assert impressions.quantile(0.99) > 5 * impressions.median()
    assert clean_log["cate"].nunique() == 400
    assert sample["cate"].isin(clean_log["cate"]).all()
    prices = logs.ad_feature.to_pandas()["price"].astype(float)
    assert prices.min() == 0.01
    assert prices.max() == 99_999_999.0
    assert prices.quantile(0.99) > 10 * prices.median()


def test_files_are_not_sorted(logs):
    for table in (logs.raw_sample, logs.behavior_log):
        for column in ("user", "time_stamp"):
            rising = np.diff(table[column].to_numpy()) >= 0
            assert 0.4 < rising.mean() < 0.6


def _match_scores(
    sample: pd.DataFrame, log: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Scores each impression by weighted shares of its category.

    Each score reads the behaviors strictly before the impression alone. They
    differ in the weight of a behavior.
    """
    user, time, cate = (
        log[name].to_numpy() for name in ("user", "time_stamp", "cate")
    )
    hour = (time + UTC_OFFSET) % 86400 / 3600
    weekend = pd.to_datetime(time + UTC_OFFSET, unit="s").day_of_week >= 5
    start = np.searchsorted(user, sample["user"])
    stop = np.searchsorted(user, sample["user"], side="right")
    names = ("whole", "session", "day", "hour", "habit", "recency")
    scores = {name: np.zeros(len(sample)) for name in names}
    at = sample["time_stamp"].to_numpy()
    at_hour = (at + UTC_OFFSET) % 86400 / 3600
    at_weekend = pd.to_datetime(at + UTC_OFFSET, unit="s").day_of_week >= 5
    for row, candidate in enumerate(sample["cate"].to_numpy()):
        first = start[row]
        last = first + np.searchsorted(time[first : stop[row]], at[row])
        if first == last:
            continue
        past = slice(first, last)
        same = cate[past] == candidate
        age = at[row] - time[past]
        breaks = np.flatnonzero(np.diff(time[past]) > 1800)
        newest = 0 if len(breaks) == 0 else breaks[-1] + 1
        away = np.abs(hour[past] - at_hour[row])
        near = np.exp(-0.5 * (np.minimum(away, 24 - away) / 1.5) ** 2)
        weights = {
            "whole": np.ones(len(same)),
            "session": np.arange(len(same)) >= newest,
            "day": age <= 86400,
            "hour": near + 0.01,
            "habit": (near + 0.01)
            * np.where(weekend[past] == at_weekend[row], 1.0, 0.1),
            "recency": 1.0 / (age + 60.0),
        }
        for name, weight in weights.items():
            scores[name][row] = weight @ same / max(weight.sum(), 1e-9)
    return scores


def test_time_matters_to_the_label(logs, sample, clean_log):
    scores = _match_scores(sample, clean_log)
    scores["recency and habit"] = scores["recency"] + scores["habit"]
    click = sample["clk"].to_numpy()
    auc = {name: roc_auc_score(click, score) for name, score in scores.items()}
    oracle = roc_auc_score(click, logs.click_logit)
    assert 0.80 < oracle < 0.86
    assert 0.61 < auc["whole"] < 0.68
    assert auc["session"] > auc["whole"] + 0.01
    assert auc["day"] > auc["whole"] + 0.01
    assert auc["hour"] > auc["whole"] + 0.025
    assert auc["habit"] > auc["hour"] + 0.005
    assert auc["recency"] > auc["session"] + 0.03
    assert auc["recency and habit"] > auc["recency"] + 0.002
    assert oracle > auc["recency and habit"] + 0.06


def test_habit_foresees_what_a_session_opens_with(sample, clean_log):
    before = pd.merge_asof(
        sample.reset_index().sort_values("time_stamp"),
        clean_log[["user", "time_stamp"]]
        .assign(last=clean_log["time_stamp"])
        .sort_values("time_stamp"),
        on="time_stamp",
        by="user",
        allow_exact_matches=False,
    )
    pause = before["time_stamp"] - before["last"]
    opening = sample.loc[before["index"][pause > 1800]]
    assert 0.15 < len(opening) / len(sample) < 0.3
    scores = _match_scores(opening, clean_log)
    auc = {
        name: roc_auc_score(opening["clk"], score)
        for name, score in scores.items()
    }
    assert auc["habit"] > auc["whole"] + 0.01
    assert auc["habit"] > auc["session"] + 0.05


def test_interests_are_active_by_hour_weekend_and_episode():
    users = Users(
        favorites=np.zeros((1, 9, 4), dtype=np.int64),
        favorite_brand=np.zeros((1, 400), dtype=np.int64),
        strength=np.ones((1, 9)),
        hour=np.array([[12.0, 23.5, 6.0]]),
        episode_start=np.array([[[2.0, 9.0], [15.0, 20.0]]]),
        episode_end=np.array([[[4.0, 11.0], [17.0, 22.0]]]),
        num_behaviors=np.ones(1),
    )
    # 2017-04-22 12:00 was a Saturday, 04-24 00:30 a Monday, and 05-01 06:00
    # is nine days after the start.
    days = np.array([0.5, 2.0 + 0.5 / 24, 9.25, 5.0])
    times = LOG_START + np.round(days * 86400).astype(np.int64)
    weights = synthetic_interests.interest_weights(
        users, np.zeros(4, dtype=np.int64), times
    )
    active = weights[:, 2:] > 3.0
    #   12:00, 23:30, 6:00; weekend twice; two episodes
    np.testing.assert_array_equal(
        active.astype(int),
        [
            [1, 0, 0, 1, 1, 0, 0],
            [0, 1, 0, 0, 0, 1, 0],
            [0, 0, 1, 0, 0, 1, 0],
            [0, 1, 0, 0, 0, 0, 0],
        ],
    )
    assert (weights[:, 2:][~active] < 0.3).all()


def test_sessions_of_a_user_do_not_overlap():
    rng = np.random.default_rng(5)
    catalog = draw_catalog(rng)
    users = synthetic_interests.draw_users(rng, catalog, 100)
    sessions, behaviors = synthetic_interests.draw_sessions(rng, catalog, users)
    begin = behaviors.time[sessions.first]
    end = behaviors.time[sessions.first + sessions.length - 1]
    same_user = sessions.user[1:] == sessions.user[:-1]
    assert (begin[1:] - end[:-1])[same_user].min() == 1800
    np.testing.assert_array_equal(
        behaviors.user, np.repeat(sessions.user, sessions.length)
    )
