"""Made raw files of Ele.me: of the documented form, with no real row.

The real ones need an account. What is tested on these shows that the form is
read as documented, and nothing of the real values.
"""

import gzip
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

COLUMNS = [
    *("clicked", "user_id", "gender", "visit_city", "avg_price"),
    *("is_supervip", "ctr_30", "ord_30", "total_amt_30", "shop_id", "item_id"),
    *("city_id", "district_id", "shop_aoi_id", "shop_geohash_6"),
    *("shop_geohash_12", "brand_id", "category_1_id"),
    *("merge_standard_food_id", "rank_7", "rank_30", "rank_90"),
    *("shop_id_list", "item_id_list", "category_1_id_list"),
    *("merge_standard_food_id_list", "brand_id_list", "price_list"),
    *("shop_aoi_id_list", "shop_geohash6_list", "timediff_list"),
    *("hours_list", "time_type_list", "weekdays_list", "times", "hours"),
    *("time_type", "weekdays", "geohash12"),
]
HISTORY = [name for name in COLUMNS if name.endswith("_list")]

MIDNIGHT = {
    day: 1_648_742_400 + 86_400 * (day - 1)  # 2022-04-01 in China (UTC+8)
    for day in range(1, 9)
}

Row = dict[str, str]
Behavior = Mapping[str, object]

_ROW: Row = {
    **dict.fromkeys(COLUMNS, ""),
    "clicked": "0",
    "user_id": "1",
    "gender": "1",
    "visit_city": "7",
    "avg_price": "23.5",
    "is_supervip": "0",
    "ctr_30": "3",
    "ord_30": "2",
    "total_amt_30": "101.25",
    "shop_id": "100",
    "item_id": "1000",
    "city_id": "7",
    "district_id": "70",
    "shop_aoi_id": "700",
    "shop_geohash_6": "wtw3sj",
    "shop_geohash_12": "wtw3sjq6qkgz",
    "brand_id": "5",
    "category_1_id": "1001",
    "merge_standard_food_id": "9",
    "rank_7": "1",
    "rank_30": "2",
    "rank_90": "3",
    "times": str(MIDNIGHT[7] + 43_200),
    "hours": "12",
    "time_type": "lunch",
    "weekdays": "4",
    "geohash12": "wtw3sjabcdef",
}
_BEHAVIOR: Behavior = {
    "shop_id_list": 100,
    "item_id_list": 1000,
    "category_1_id_list": 1001,
    "merge_standard_food_id_list": 9,
    "brand_id_list": 5,
    "price_list": "12.5",
    "shop_aoi_id_list": 700,
    "shop_geohash6_list": "wtw3sj",
    "timediff_list": 3_600_000,
    "hours_list": 11,
    "time_type_list": "lunch",
    "weekdays_list": 4,
}
PADDING: Behavior = {**dict.fromkeys(HISTORY, 0), "timediff_list": -1}


def row(history: Sequence[Behavior] = (), **values: object) -> Row:
    """Returns a row; each behavior says what is not as in others."""
    behaviors = [{**_BEHAVIOR, **behavior} for behavior in history]
    lists = {
        name: ";".join(str(b[name]) for b in behaviors) for name in HISTORY
    }
    return {**_ROW, **lists, **{k: str(v) for k, v in values.items()}}


def days(*train: Row, test: Sequence[Row] = ()) -> dict[str, Sequence[Row]]:
    """Returns files of day 7 and, with a row of its own, of day 8."""
    later = row(user_id=999, times=MIDNIGHT[8])
    return {"D7_0.csv": train, "D8_0.csv": test or [later]}


def text(rows: Sequence[Row]) -> str:
    """Returns the text of a file."""
    return "".join(",".join(r[c] for c in COLUMNS) + "\n" for r in rows)


def write(folder: Path, files: Mapping[str, Sequence[Row]]) -> Path:
    """Writes files, packed as their names say."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        data = text(rows).encode()
        if name.endswith(".zip"):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name.removesuffix(".zip"), data)
            data = packed.getvalue()
        elif name.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        (folder / name).write_bytes(data)
    return folder


_pick = st.sampled_from
_SECONDS = (0, 1, 3600, 43_200, 86_399)
_IDS = ("5", "6", "0", "-1", "9223372036854775807", "")
_PLACES = ("wtw3sj", "wx4g0b", "-1", "")
_behaviors = st.fixed_dictionaries(
    {
        "shop_id_list": _pick(("100", "101", "0", "")),
        "item_id_list": _pick(("1000", "1001", "0", "")),
        "category_1_id_list": _pick(("1001", "0", "")),
        "merge_standard_food_id_list": _pick(("9", "-1", "")),
        "brand_id_list": _pick(_IDS),
        "price_list": _pick(("12.5", "12.51", "0", "-1", "")),
        "shop_aoi_id_list": _pick(("700", "-1", "")),
        "shop_geohash6_list": _pick(_PLACES),
        "timediff_list": _pick(
            ("1", "0", "-1", "999", "1000", "1001", "86400000", "5.5", "")
        ),
        "hours_list": _pick(("11", "12", "0", "")),
    }
)
# Few kinds, so that different requests repeat each other's behaviors.
_histories = st.lists(_behaviors, min_size=1, max_size=3).flatmap(
    lambda kinds: st.lists(_pick([*kinds, PADDING]), max_size=4)
)
_OPTIONAL = {
    "gender": ("1", "-99", "-1", ""),
    "visit_city": ("7", "70", ""),
    "avg_price": ("23.5", "0", "-2.5", ""),
    "total_amt_30": ("101.25", ""),
    "ctr_30": ("3", "4", ""),
    "city_id": ("7", "70", "-1", ""),
    "shop_aoi_id": ("700", "-1", ""),
    "shop_geohash_6": _PLACES,
    "shop_geohash_12": ("wtw3sjq6qkgz", "-1", ""),
    "brand_id": _IDS,
    "rank_7": ("1", "2", "-1", ""),
    "hours": ("12", ""),
    "time_type": ("lunch", "tea", ""),
    "geohash12": ("wtw3sjabcdef", "wx4g0b", "-1", ""),
}
_CORRUPTED = st.sampled_from(
    [
        {"clicked": "2"},
        {"times": str(MIDNIGHT[6])},
        {"times": str(MIDNIGHT[7] - 1)},
        {"times": "1"},
        {"brand_id_list": "1;2;3;4;5;6"},
        {"hours_list": "noon"},
        {"shop_id_list": "1.5"},
        {"timediff_list": "nan"},
        {"price_list": "inf"},
        {"price_list": "cheap"},
        {"timediff_list": "100000000000"},
    ]
)


@st.composite
def raw_files(
    draw: st.DrawFn, *, corrupted: bool = False
) -> dict[str, list[Row]]:
    """Draws parts of two days, with corrupted rows or without."""
    files = {}
    for day in (7, 8):
        rows = []
        for _ in range(draw(st.integers(1, 6))):
            values = {k: draw(_pick(v)) for k, v in _OPTIONAL.items()}
            found = row(
                draw(_histories),
                clicked=draw(st.integers(0, 1)),
                user_id=draw(_pick((1, 2, -3))),
                item_id=draw(_pick((1000, 1001))),
                times=MIDNIGHT[day] + draw(_pick(_SECONDS)),
                **values,
            )
            if corrupted and draw(st.booleans()):
                found |= draw(_CORRUPTED)
            rows.append(found)
        if corrupted:  # Or there could be no row left.
            rows.append(row(user_id=4, times=MIDNIGHT[day]))
        cut = draw(st.integers(0, len(rows)))
        packing = draw(_pick(("", ".zip", ".gz")))
        # Not in the order of their names: part 10 is after part 2.
        files[f"D{day}_10.csv"] = rows[cut:]
        files[f"eleme_data_2022040{day}_2.csv{packing}"] = rows[:cut]
    return files
