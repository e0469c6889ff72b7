"""What a store of Ele.me's files must hold, read plainly and slowly.

It shares no code with the packages: what it says, it says from the docstring
of `data_pipelines/datasets/eleme.py` and the documentation of the files.
"""

import math
from collections.abc import Sequence

from tests.data_pipelines.decoded_store import Values
from tests.data_pipelines.eleme_files import COLUMNS, MIDNIGHT, Row
from tests.data_pipelines.reference_files import number
from tests.data_pipelines.reference_listwise import (
    Behavior,
    Expected,
    Fields,
    Impression,
    Raw,
    build,
)

_BEHAVIOR = {
    "shop_id": "shop_id_list",
    "item_id": "item_id_list",
    "category_1_id": "category_1_id_list",
    "merge_standard_food_id": "merge_standard_food_id_list",
    "brand_id": "brand_id_list",
    "shop_aoi_id": "shop_aoi_id_list",
    "shop_geohash_6": "shop_geohash6_list",
    "hours": "hours_list",
}
_CANDIDATE = COLUMNS[9:22]
_PROFILE = (
    *("gender", "visit_city", "is_supervip", "ctr_30", "ord_30"),
    *("hours", "time_type", "geohash_6"),
)
_TABLE = {"visit_city": "city_id", "shop_geohash_6": "geohash_6"}
_SEEN_ONCE = ("gender", "is_supervip", "hours", "time_type")
_TEXTS = ("shop_geohash_6", "shop_geohash_12", "time_type", "geohash_6")
_MISSING = {
    "gender": "-99",
    **dict.fromkeys(
        (
            *("city_id", "district_id", "shop_aoi_id", "shop_geohash_6"),
            *("shop_geohash_12", "rank_7", "rank_30", "rank_90"),
        ),
        "-1",
    ),
}


def _tables(names: Sequence[str]) -> dict[str, str]:
    return {name: _TABLE.get(name, name) for name in names}


_NUMBERS = ("user_avg_price", "user_total_amt_30", "behavior_price")
FIELDS = Fields(
    user=_tables(_PROFILE),
    behavior=_tables([*_BEHAVIOR]),
    candidate=_tables(_CANDIDATE),
    min_count={
        table: 2
        for name in (*_PROFILE, *_BEHAVIOR, *_CANDIDATE)
        if (table := _TABLE.get(name, name)) not in _SEEN_ONCE
    },
    numbers=_NUMBERS,
    log_scaled=_NUMBERS,
)


def expected_store(days: dict[int, list[Row]]) -> Expected:
    """Returns what a store of the rows of days 7 and 8 must hold.

    Corrupted rows are dropped. The order of a day's rows is that of its parts.
    """
    impressions = []
    behaviors: list[Behavior] = []
    requests = set()
    dropped = dict.fromkeys(
        (
            "corrupted rows",
            "rows of another day than their file's",
            "behaviors without a time",
            "behaviors at or after their request",
            "repeated behaviors",
        ),
        0,
    )
    num_strange = 0
    for day, rows in days.items():
        for row in rows:
            fault = _fault(row, day)
            if fault:
                dropped[fault] += 1
                continue
            impression = _impression(row)
            impressions.append(impression)
            key = (impression.user_id, impression.request)
            if key in requests:
                continue
            requests.add(key)
            for time, values in _history(row):
                if time is None:
                    dropped["behaviors without a time"] += 1
                elif time >= impression.time:
                    dropped["behaviors at or after their request"] += 1
                else:
                    hour = (time + 8 * 3600) % 86400 // 3600
                    num_strange += values["hours"] not in (hour, None)
                    behavior = Behavior(
                        user_id=impression.user_id, time=time, values=values
                    )
                    if behavior in behaviors:
                        dropped["repeated behaviors"] += 1
                    else:
                        behaviors.append(behavior)
    expected = build(
        Raw(
            fields=FIELDS,
            users={},
            behaviors=behaviors,
            impressions=impressions,
            test_time=MIDNIGHT[8],
            dropped=dropped,
            incomplete={
                "behaviors whose hour is not that of their time": num_strange
            },
        )
    )
    # There is no table of users, and so nothing to say of it.
    del expected.dropped["profiles of users without a request"]
    del expected.incomplete["users without a profile"]
    return expected


def _fault(row: Row, day: int) -> str:
    if row["clicked"] not in ("0", "1"):
        return "corrupted rows"
    if not MIDNIGHT[day] <= int(row["times"]) < MIDNIGHT[day] + 86_400:
        return "rows of another day than their file's"
    names = (*_BEHAVIOR.values(), "price_list", "timediff_list")
    lists = [row[name].split(";") for name in names]
    if len({len(values) for values in lists}) > 1:
        return "corrupted rows"
    *fields, prices, timediffs = lists
    for name, values in zip(_BEHAVIOR, fields, strict=True):
        if name not in _TEXTS and not all(map(_is_whole, values)):
            return "corrupted rows"
    if not all(map(_is_number, [*prices, *timediffs])):
        return "corrupted rows"
    for shop, item, timediff in zip(*lists[:2], timediffs, strict=True):
        is_near = abs(float(timediff or 0)) < 366 * 86_400_000
        if not is_near and not _is_padding(shop, item):
            return "corrupted rows"
    return ""


def _is_whole(text: str) -> bool:
    return not text or text.removeprefix("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text or 0))
    except ValueError:
        return False


def _is_padding(shop: str, item: str) -> bool:
    return {shop, item} <= {"", "0"}


def _impression(row: Row) -> Impression:
    time = int(row["times"])
    place = "" if row["geohash12"] == "-1" else row["geohash12"]
    values: Values = {name: _value(name, row[name]) for name in _CANDIDATE}
    return Impression(
        user_id=int(row["user_id"]),
        time=time,
        request=(time, place),
        label=int(row["clicked"]),
        values=values,
        profile={
            "avg_price": number(row["avg_price"]),
            "total_amt_30": number(row["total_amt_30"]),
            **{
                name: place[:6] or None
                if name == "geohash_6"
                else _value(name, row[name])
                for name in _PROFILE
            },
        },
    )


def _history(row: Row) -> list[tuple[int | None, Values]]:
    """Returns time and values of all that is no padding."""
    columns = {n: row[column].split(";") for n, column in _BEHAVIOR.items()}
    prices = row["price_list"].split(";")
    found: list[tuple[int | None, Values]] = []
    for index, timediff in enumerate(row["timediff_list"].split(";")):
        texts = {name: values[index] for name, values in columns.items()}
        if _is_padding(texts["shop_id"], texts["item_id"]):
            continue
        time = None
        if timediff:
            passed = 1000 * int(row["times"]) - float(timediff)
            time = math.floor(passed) // 1000
        values = {name: _value(name, text) for name, text in texts.items()}
        found.append((time, {**values, "price": number(prices[index])}))
    return found


def _value(name: str, text: str) -> int | str | None:
    if text in ("", _MISSING.get(name)):
        return None
    return text if name in _TEXTS else int(text)
