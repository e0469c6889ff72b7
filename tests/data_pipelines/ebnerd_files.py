"""Made files of EB-NeRD in the published types, with no real row."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

FIRST = 1_684_393_200
"""2023-05-18 07:00 UTC, when the week of `train` begins."""

HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400

Rows = Sequence[Mapping[str, Any]]

_TIME = pa.timestamp("us")
TYPES: dict[str, dict[str, pa.DataType]] = {
    "behaviors": {
        "impression_id": pa.uint32(),
        "article_id": pa.int32(),
        "impression_time": _TIME,
        "read_time": pa.float32(),
        "scroll_percentage": pa.float32(),
        "device_type": pa.int8(),
        "article_ids_inview": pa.large_list(pa.int32()),
        "article_ids_clicked": pa.large_list(pa.int32()),
        "user_id": pa.uint32(),
        "is_sso_user": pa.bool_(),
        "gender": pa.int8(),
        "postcode": pa.int8(),
        "age": pa.int8(),
        "is_subscriber": pa.bool_(),
        "session_id": pa.uint32(),
        "next_read_time": pa.float32(),
        "next_scroll_percentage": pa.float32(),
    },
    "history": {
        "user_id": pa.uint32(),
        "impression_time_fixed": pa.large_list(_TIME),
        "scroll_percentage_fixed": pa.large_list(pa.float32()),
        "article_id_fixed": pa.large_list(pa.int32()),
        "read_time_fixed": pa.large_list(pa.float32()),
    },
    "articles": {
        "article_id": pa.int32(),
        "title": pa.large_string(),
        "premium": pa.bool_(),
        "article_type": pa.large_string(),
        "category": pa.int16(),
        "subcategory": pa.large_list(pa.int16()),
        "total_inviews": pa.int32(),
    },
}
"""Columns in the order of the files."""


def moment(time: float) -> datetime.datetime:
    """Returns a Unix time as the files have it."""
    utc = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return utc.replace(tzinfo=None)


def impression(
    number: int,
    user: int,
    time: float,
    shown: Sequence[int] | None,
    clicked: Sequence[int] | None,
    **values: Any,
) -> dict[str, Any]:
    """Returns a row of behaviors, null where nothing is said."""
    return {
        **dict.fromkeys(TYPES["behaviors"]),
        "impression_id": number,
        "user_id": user,
        "impression_time": moment(time),
        "article_ids_inview": shown,
        "article_ids_clicked": clicked,
        "device_type": 1,
        "is_sso_user": False,
        "is_subscriber": True,
        **values,
    }


def history(
    user: int, *read: tuple[float, int, float | None, float | None]
) -> dict[str, Any]:
    """Returns a row of a history: time, article, seconds, percentage."""
    return {
        "user_id": user,
        "impression_time_fixed": [moment(time) for time, *_ in read],
        "article_id_fixed": [article for _, article, _, _ in read],
        "read_time_fixed": [seconds for *_, seconds, _ in read],
        "scroll_percentage_fixed": [percentage for *_, percentage in read],
    }


def article(
    number: int,
    category: int | None = None,
    subcategory: Sequence[int | None] | None = None,
    article_type: str | None = None,
    premium: bool | None = None,
) -> dict[str, Any]:
    """Returns a row of articles."""
    return {
        "article_id": number,
        "title": "x",
        "premium": premium,
        "article_type": article_type,
        "category": category,
        "subcategory": subcategory,
        "total_inviews": 7,
    }


def write(
    folder: Path,
    files: Mapping[str, Rows],
    types: Mapping[str, pa.DataType] | None = None,
) -> Path:
    """Writes files.

    Args:
        folder: Where.
        files: Rows of "train/behaviors" and so on.
        types: Types of columns that are not the published ones.
    """
    for name, rows in files.items():
        columns = {**TYPES[name.split("/")[-1]]}
        columns |= {k: v for k, v in (types or {}).items() if k in columns}
        schema = pa.schema(list(columns.items()))
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(list(rows), schema), path, row_group_size=3
        )
    return folder


_pick = st.sampled_from
_USERS = (1, 2, 4_294_967_295)
_ARTICLES = (10, 11, 12, 2_147_483_647)
_SECONDS = (0, 0.25, 1, HOUR, 30 * HOUR)
_NUMBERS = (0.0, 1.5, 100.0, float("nan"), None)
_PROFILE = {
    "article_id": (None, 10, 99),
    "device_type": (None, 0, 3),
    "is_sso_user": (None, True, False),
    "gender": (None, 0, 1),
    "postcode": (None, 4),
    "age": (None, 60, 0),
    "is_subscriber": (True, False),
}
_articles = st.lists(_pick(_ARTICLES), max_size=4)


@st.composite
def raw_files(
    draw: st.DrawFn, folders: Sequence[str], has_articles: bool
) -> dict[str, Rows]:
    """Draws the files of some folders."""
    files: dict[str, Rows] = {}
    number = draw(_pick((0, 4_294_967_000)))
    for folder in folders:
        begin = FIRST if folder == "train" else FIRST + WEEK
        rows = []
        for part in (0, 6 * DAY):
            # One at least, or a part could be without a request.
            rows.append(impression(number, 3, begin + part, [10], None))
            number += 1
            for _ in range(draw(st.integers(0, 4))):
                shown = draw(st.none() | _articles)
                clicked = draw(st.none() | _articles)
                rows.append(
                    impression(
                        number,
                        draw(_pick(_USERS)),
                        begin + part + draw(_pick(_SECONDS)),
                        shown,
                        clicked,
                        **{k: draw(_pick(v)) for k, v in _PROFILE.items()},
                    )
                )
                number += 1
        files[f"{folder}/behaviors"] = draw(st.permutations(rows))
        reading = st.tuples(
            _pick((FIRST - DAY, FIRST - 1, FIRST, FIRST + 2 * DAY)),
            _pick(_ARTICLES),
            _pick(_NUMBERS),
            _pick(_NUMBERS),
        )
        files[f"{folder}/history"] = [
            history(user, *draw(st.lists(reading, max_size=4)))
            for user in draw(
                st.lists(_pick((*_USERS, 77)), max_size=4, unique=True)
            )
        ]
    if has_articles:
        values = st.tuples(
            _pick((None, 5, 6)),
            st.none() | st.lists(_pick((1, 2, 3, 4, 5, None)), max_size=6),
            _pick((None, "", "article_default", "ä")),
            _pick((None, True, False)),
        )
        files["articles"] = [
            article(name, *draw(values))
            for name in draw(
                st.lists(_pick(_ARTICLES), max_size=4, unique=True)
            )
        ]
    return files
