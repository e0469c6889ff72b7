"""Ele.me (Tianchi 131047): dishes shown in a food delivery app, clicked or not.

Raw files: `D<day>_<part>.csv`, days 1 to 8, also called
`eleme_data_2022040<day>_<part>.csv`, each also as `.csv.zip` (as they are
published), `.csv.gz` or `.csv.tar.gz`. No header, 39 columns, one row a
candidate.

A request is a user at a second and a place (`geohash12`). Every row repeats
the history of its request: at most 50 behaviors of the last 30 days, with the
time that had passed since. Its unit is not documented; milliseconds is what
others take it for, and the manifest counts the behaviors whose hour in the
file is not that of the time that comes out.

A user's history in the store is the union of those of all requests, cut at
each request's second. That of an early request can so reach further back than
its own 50, or hold a behavior that its own left out; a recipe with
`max_history=50` reads the newest 50 again. Times are whole seconds, rounded
down: if `timediff_list` is finer than `times`, two requests can place the same
behavior a second apart, and it is then stored twice.

Not read: weekdays of the history (the model knows weekends from the times),
its meal times, which follow from the hours, and the weekday of the request:
with one day of training there is but one.
"""

import dataclasses
import datetime
import functools
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.datasets.eleme_history import (
    BEHAVIOR_FIELDS,
    BEHAVIOR_NUMBERS,
    LIST_COLUMNS,
    TIME_ZONE,
    TIMEDIFF_UNITS,
    check,
    parse_histories,
    union_of_histories,
    without,
)
from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import FromTime, describe_day
from sparsectr.errors import InputError
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

FIRST_DAY = datetime.date(2022, 4, 1)
"""Day 1. Not documented; the other names of the files say so."""

NUM_DAYS = 8

COLUMNS = (
    "clicked",
    "user_id",
    "gender",
    "visit_city",
    "avg_price",
    "is_supervip",
    "ctr_30",
    "ord_30",
    "total_amt_30",
    "shop_id",
    "item_id",
    "city_id",
    "district_id",
    "shop_aoi_id",
    "shop_geohash_6",
    "shop_geohash_12",
    "brand_id",
    "category_1_id",
    "merge_standard_food_id",
    "rank_7",
    "rank_30",
    "rank_90",
    "shop_id_list",
    "item_id_list",
    "category_1_id_list",
    "merge_standard_food_id_list",
    "brand_id_list",
    "price_list",
    "shop_aoi_id_list",
    "shop_geohash6_list",
    "timediff_list",
    "hours_list",
    "time_type_list",
    "weekdays_list",
    "times",
    "hours",
    "time_type",
    "weekdays",
    "geohash12",
)
"""The columns of a file, in their order."""

# The user's number is no field: the history says who a user is, and with a
# request or two a day rows of its own only memorize. Nor is the place of a
# request to the last digit; its first six (about a kilometre) share the table
# of those of shops, so that near and far can be told.
#
# Where a value must be seen twice to have a row of its own, the others train
# the out-of-vocabulary row, which unknown values of the test then use.
SCHEMA = DatasetSchema(
    name="eleme",
    tables=(
        Table(name="gender"),
        Table(name="city_id", min_count=2),
        Table(name="is_supervip"),
        Table(name="ctr_30", min_count=2),
        Table(name="ord_30", min_count=2),
        Table(name="hours"),
        Table(name="time_type", value_type="string"),
        Table(name="shop_id", min_count=2),
        Table(name="item_id", min_count=2),
        Table(name="district_id", min_count=2),
        Table(name="shop_aoi_id", min_count=2),
        Table(name="geohash_6", value_type="string", min_count=2),
        Table(name="shop_geohash_12", value_type="string", min_count=2),
        Table(name="brand_id", min_count=2),
        Table(name="category_1_id", min_count=2),
        Table(name="merge_standard_food_id", min_count=2),
        Table(name="rank_7", min_count=2),
        Table(name="rank_30", min_count=2),
        Table(name="rank_90", min_count=2),
    ),
    # Of the request, that is: a profile is as of its request.
    user_fields=(
        CategoricalField(name="gender", table="gender"),
        CategoricalField(name="visit_city", table="city_id"),
        *(
            CategoricalField(name=name, table=name)
            for name in (
                "is_supervip",
                "ctr_30",
                "ord_30",
                "hours",
                "time_type",
                "geohash_6",
            )
        ),
    ),
    behavior_fields=tuple(
        CategoricalField(
            name=name, table="geohash_6" if name == "shop_geohash_6" else name
        )
        for name in BEHAVIOR_FIELDS
    ),
    candidate_fields=tuple(
        CategoricalField(
            name=name, table="geohash_6" if name == "shop_geohash_6" else name
        )
        for name in COLUMNS[9:22]
    ),
    behavior_dense_fields=tuple(
        DenseField(name=name, transform="log1p") for name in BEHAVIOR_NUMBERS
    ),
    user_dense_fields=(
        DenseField(name="avg_price", transform="log1p"),
        DenseField(name="total_amt_30", transform="log1p"),
    ),
    time_zone=TIME_ZONE,
)

# What stands for a missing value beside an empty text.
_MISSING: Mapping[str, int | str] = {
    "gender": -99,
    **dict.fromkeys(
        ("city_id", "district_id", "shop_aoi_id", *COLUMNS[19:22]), -1
    ),
    **dict.fromkeys(("shop_geohash_6", "shop_geohash_12", "geohash12"), "-1"),
}

_INT = pa.int64()
_TEXT = pa.string()
_KINDS = {
    **{name: _INT for name in COLUMNS if name not in LIST_COLUMNS},
    **dict.fromkeys(("avg_price", "total_amt_30"), pa.float32()),
    **dict.fromkeys(
        (
            "shop_geohash_6",
            "shop_geohash_12",
            "time_type",
            "geohash12",
            *LIST_COLUMNS,
        ),
        _TEXT,
    ),
}
_NOT_READ = ("time_type_list", "weekdays_list", "weekdays")
_READER = CsvReader(
    columns={n: _KINDS[n] for n in COLUMNS if n not in _NOT_READ},
    required=("clicked", "user_id", "shop_id", "item_id", "times"),
    file_format=CsvFormat(column_names=COLUMNS, quoted=False),
)
_FILE_NAME = re.compile(
    r"(?:D|eleme_data_2022040)([1-8])_(\d+)\.csv(?:\.gz|\.tar\.gz|\.zip)?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElemeReader:
    """Reads files of Ele.me with a column `day`, that of the file's name."""

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""
        return _READER.schema(source).append(pa.field("day", _INT))

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges of bytes that can be read by themselves."""
        return _READER.ranges(source, range_bytes)

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows whose lines begin in a range, in their order.

        Raises:
            InputError: If a line does not have the documented columns.
        """
        day, _ = _day_and_part(source.path)
        for rows in _READER.read(source, start, end):
            days = pa.repeat(pa.scalar(day, _INT), len(rows.table))
            rows.table = rows.table.append_column("day", days)
            yield rows

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Returns file and line of a row."""
        return _READER.where(source, start, row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElemeOptions:
    """What the files do not settle.

    Args:
        train_days: Days to train on, 1 to 8. The default is that of the
            authors of the paper.
        test_days: Days to test on, all after those.
        first_day: The date of day 1, UTC+8.
        timediff_unit: Unit of `timediff_list`, one of `TIMEDIFF_UNITS`.
        drop_corrupted_rows: Whether rows are dropped and counted, not
            refused, whose label, day or history is not as documented.

    Raises:
        InputError: If the days do not make a split, or there is no such unit.
    """

    train_days: tuple[int, ...] = (7,)
    test_days: tuple[int, ...] = (8,)
    first_day: datetime.date = FIRST_DAY
    timediff_unit: str = "ms"
    drop_corrupted_rows: bool = False

    def __post_init__(self) -> None:
        for name in ("train_days", "test_days"):
            days = getattr(self, name)
            if not days or not all(1 <= day <= NUM_DAYS for day in days):
                raise InputError(
                    f"--{name} are numbers from 1 to {NUM_DAYS}. "
                    f"Received: {_join(days) or 'none'}"
                )
        if max(self.train_days) >= min(self.test_days):
            raise InputError(
                "Every day of --train_days must be before those of "
                f"--test_days. Received: {_join(self.train_days)} and "
                f"{_join(self.test_days)}"
            )
        if self.timediff_unit not in TIMEDIFF_UNITS:
            raise InputError(
                f"--timediff_unit is one of {', '.join(TIMEDIFF_UNITS)}. "
                f"Received: {self.timediff_unit}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the values as JSON has them."""
        return {
            **dataclasses.asdict(self),
            "train_days": list(self.train_days),
            "test_days": list(self.test_days),
            "first_day": str(self.first_day),
        }


def open_eleme(
    raw_dir: Path, options: ElemeOptions | None = None
) -> RawDataset:
    """Finds the files of the chosen days.

    Raises:
        InputError: If a day has no file, or a part of it is there twice.
    """
    options = options or ElemeOptions()
    days = sorted({*options.train_days, *options.test_days})
    test_day = options.first_day + datetime.timedelta(
        days=min(options.test_days) - 1
    )
    test_time = TIME_ZONE.start_of_day(test_day)
    return RawDataset(
        schema=SCHEMA,
        impressions=RawTable(
            name="impressions",
            sources=_find(raw_dir, days),
            reader=ElemeReader(),
            convert=functools.partial(_convert, options),
        ),
        behaviors=union_of_histories,
        split=FromTime(time=test_time, rule=describe_day(test_time, TIME_ZONE)),
        unique_behaviors=True,
    )


def _find(raw_dir: Path, days: Sequence[int]) -> tuple[SourceFile, ...]:
    """Returns all parts of some days, in their order.

    Raises:
        InputError: If a day has none, or a part is there twice.
    """
    if not raw_dir.is_dir():
        raise InputError(f"{raw_dir} is not a folder.")
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(raw_dir.iterdir()):
        if _FILE_NAME.fullmatch(path.name):
            other = found.setdefault(_day_and_part(path), path)
            if other != path:
                raise InputError(
                    f"{raw_dir} has a part of a day twice: {other.name} and "
                    f"{path.name}."
                )
    present = sorted({day for day, _ in found})
    for day in days:
        if day not in present:
            hint = (
                " The publisher's list of files lacks that day: --train_days=6 "
                "trains on the day before it."
                if day == 7
                else ""
            )
            raise InputError(
                f"{raw_dir} has no file of day {day}, D{day}_<part>.csv (nor "
                f".zip, .gz, .tar.gz); days there: {_join(present) or 'none'}."
                f"{hint}"
            )
    return tuple(
        SourceFile(path=path)
        for (day, _), path in sorted(found.items())
        if day in days
    )


def _day_and_part(path: Path) -> tuple[int, int]:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"Not a file of Ele.me: {path}")
    return int(match[1]), int(match[2])


def _join(days: Sequence[int]) -> str:
    return ",".join(map(str, days))


def _convert(options: ElemeOptions, rows: RawRows) -> None:
    drop = options.drop_corrupted_rows
    is_label = pc.is_in(rows.table["clicked"], value_set=pa.array([0, 1]))
    check(rows, {"`clicked` is 0 or 1": is_label.to_numpy()}, drop=drop)
    _check_day(rows, options.first_day, drop=drop)
    parse_histories(rows, options.timediff_unit, drop=drop)
    table = rows.table
    for name, missing in _MISSING.items():
        values = without(table[name], missing)
        table = table.set_column(table.column_names.index(name), name, values)
    time, place = table["times"], table["geohash12"]
    request = pc.binary_join_element_wise(
        # Ten digits, so that requests are in the order of their times.
        pc.utf8_lpad(pc.cast(time, _TEXT), 10, "0"),
        pc.fill_null(place, ""),
        " ",
    )
    rows.table = (
        table.drop_columns(["clicked", "times", "day", "geohash12"])
        .append_column("time", time)
        .append_column("request", request)
        .append_column("label", table["clicked"])
        .append_column("geohash_6", pc.utf8_slice_codeunits(place, 0, 6))
    )


def _check_day(rows: RawRows, first_day: datetime.date, *, drop: bool) -> None:
    """Checks that rows are of the day that the name of their file says.

    The days were chosen by these names: rows of another day could be on the
    wrong side of the split.
    """
    start = TIME_ZONE.start_of_day(first_day)
    midnight = pc.add(
        pc.multiply(pc.subtract(rows.table["day"], 1), 86400), start
    )
    time = rows.table["times"]
    is_in_day = pc.and_(
        pc.greater_equal(time, midnight),
        pc.less(time, pc.add(midnight, 86400)),
    )
    if drop:
        rows.drop_unless(is_in_day, "rows of another day than their file's")
        return
    rows.require(
        is_in_day,
        "the time is not in the day of the file, UTC+8, counted from "
        f"--first_day={first_day}",
        "times",
        "day",
    )
