"""What a store of EB-NeRD's files must hold, read plainly and slowly.

It shares no code with the packages: what it says, it says from the docstring
of `data_pipelines/datasets/ebnerd.py` and the documentation of the files.
"""

import datetime
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.data_pipelines.decoded_store import Values
from tests.data_pipelines.reference_listwise import (
    Behavior,
    Expected,
    Fields,
    Impression,
    Raw,
    build,
)

_FIRST = 1_684_393_200
_DAY, _WEEK = 86_400, 7 * 86_400
_PROFILE = (
    *("device_type", "is_sso_user", "is_subscriber"),
    *("gender", "postcode", "age"),
)
_ARTICLE = ("category", "article_type", "premium", "subcategory")
_NOTHING: Values = {**dict.fromkeys(_ARTICLE), "subcategory": []}


def expected_store(raw_dir: Path) -> Expected:
    """Returns what a store of these files must hold."""
    folders = [f for f in ("train", "validation") if (raw_dir / f).is_dir()]
    has_articles = (raw_dir / "articles.parquet").exists()
    articles = _articles(raw_dir) if has_articles else {}
    unknown = {"candidates": 0, "behaviors": 0}

    def features(article: int, kind: str) -> Values:
        values: Values = {"article": article}
        if has_articles:
            found = articles.get(article)
            unknown[f"{kind}s"] += found is None
            values |= found or _NOTHING
        return values

    def user(row: dict[str, Any], folder: str) -> int:
        is_second = folder == "validation" and len(folders) == 2
        return row["user_id"] + 2**32 * is_second

    behaviors: list[Behavior] = []
    num_repeated = num_empty = 0
    found: list[tuple[int, int, Values]] = []
    for folder in folders:
        for row in _rows(raw_dir / folder / "history.parquet"):
            for time, article, seconds, percentage in zip(
                row["impression_time_fixed"],
                row["article_id_fixed"],
                row["read_time_fixed"],
                row["scroll_percentage_fixed"],
                strict=True,
            ):
                values = {
                    **features(article, "behavior"),
                    "read_time": _number(seconds),
                    "scroll_percentage": _number(percentage),
                }
                found.append((user(row, folder), _time(time), values))
    impressions = []
    for folder in folders:
        for row in _rows(raw_dir / folder / "behaviors.parquet"):
            time = _time(row["impression_time"])
            clicked = row["article_ids_clicked"] or []
            for article in clicked:
                values = {
                    **features(article, "behavior"),
                    "read_time": None,
                    "scroll_percentage": None,
                }
                found.append((user(row, folder), time, values))
            shown = row["article_ids_inview"] or []
            num_empty += not shown
            for article in shown:
                profile = {
                    name: row[name] if row[name] is None else int(row[name])
                    for name in _PROFILE
                } | {"reader_id": row["user_id"]}
                impressions.append(
                    Impression(
                        user_id=user(row, folder),
                        time=time,
                        request=(time, row["impression_id"]),
                        label=int(article in clicked),
                        values=features(article, "candidate"),
                        profile={**profile, "page": row["article_id"]},
                    )
                )
    for user_id, time, values in found:
        behavior = Behavior(user_id=user_id, time=time, values=values)
        if behavior in behaviors:
            num_repeated += 1
        else:
            behaviors.append(behavior)
    test_time = _FIRST + _WEEK * (folders[-1] == "validation")
    if len(folders) == 1:
        test_time += _WEEK - _DAY
    expected = build(
        Raw(
            fields=_fields(has_articles),
            users={},
            behaviors=behaviors,
            impressions=impressions,
            test_time=test_time,
            dropped={
                "repeated behaviors": num_repeated,
                "impressions without an article in view": num_empty,
            },
            incomplete={
                f"{kind} of an article without features": number
                for kind, number in unknown.items()
            },
        )
    )
    # There is no table of users, and so nothing to say of it.
    del expected.dropped["profiles of users without a request"]
    del expected.incomplete["users without a profile"]
    return expected


def _fields(has_articles: bool) -> Fields:
    names = ("article", *(_ARTICLE if has_articles else ()))
    of_article = {name: name for name in names}
    return Fields(
        user={
            **{name: name for name in ("reader_id", *_PROFILE)},
            "page": "article",
        },
        behavior=of_article,
        candidate=of_article,
        min_count={"reader_id": 2},
        sets={"subcategory": 4},
        numbers=("behavior_read_time", "behavior_scroll_percentage"),
        log_scaled=("behavior_read_time",),
    )


def _articles(raw_dir: Path) -> dict[int, Values]:
    return {
        row["article_id"]: {
            "category": row["category"],
            "article_type": row["article_type"] or None,
            "premium": None if row["premium"] is None else int(row["premium"]),
            "subcategory": row["subcategory"] or [],
        }
        for row in _rows(raw_dir / "articles.parquet")
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def _time(moment: datetime.datetime) -> int:
    return math.floor(moment.replace(tzinfo=datetime.UTC).timestamp())


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
