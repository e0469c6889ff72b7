"""Alibaba display advertisements (Tianchi 56): impressions, clicked or not.

Raw files: `raw_sample.csv` (impressions), `ad_feature.csv`,
`user_profile.csv` and `behavior_log.csv`, each also as `.csv.gz`,
`.csv.tar.gz` or `.csv.zip`. The built-in synthetic sample has the same form.

A request is a user in one second. Its history is the user's behaviors before
that second; the log overlaps the impressions, so the cut is what keeps the
answer out of the question. Behaviors carry no advertisement: they share only
category and brand with the candidates. The eighth day of impressions
(2017-05-13 in China) is the test split.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import FromTime
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic
from sparsectr.time_zone import TimeZone

# Midnights in China (UTC+8).
FIRST_BEHAVIOR_TIME = 1_492_790_400  # 2017-04-22
FIRST_SAMPLE_TIME = 1_494_000_000  # 2017-05-06
TEST_TIME = 1_494_604_800  # 2017-05-13
END_TIME = 1_494_691_200  # 2017-05-14

_PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
_BEHAVIOR_KINDS = ("pv", "cart", "fav", "buy")

# The user's number is no field: the history says who a user is, and rows of a
# table for a million users with two dozen impressions each only memorize.
#
# Where a value must be seen more often to have a row of its own, the others
# train the out-of-vocabulary row, which unknown values of the test then use.
SCHEMA = DatasetSchema(
    name="alibaba",
    tables=(
        *(Table(name=name) for name in _PROFILE),
        Table(name="btag", value_type="string"),
        Table(name="cate", min_count=2),
        Table(name="brand", min_count=2),
        Table(name="adgroup_id", min_count=2),
        Table(name="campaign_id", min_count=2),
        Table(name="customer", min_count=2),
        Table(name="pid", value_type="string"),
    ),
    user_fields=tuple(
        CategoricalField(name=name, table=name) for name in _PROFILE
    ),
    behavior_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("btag", "cate", "brand")
    ),
    candidate_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in (
            "adgroup_id",
            "cate",
            "campaign_id",
            "customer",
            "brand",
            "pid",
        )
    ),
    candidate_dense_fields=(DenseField(name="price", transform="log1p"),),
    time_zone=TimeZone.fixed(8 * 60),
)

_DAY = 86_400

STATISTICS = (
    *(
        Statistic(
            name=name,
            fields=(f"candidate.{field}",),
            windows=(_DAY, 3 * _DAY, None),
        )
        for name, field in (
            ("adgroup", "adgroup_id"),
            ("cate", "cate"),
            ("brand", "brand"),
        )
    ),
    # A user has two dozen impressions in the eight days there are.
    Statistic(
        name="user_cate",
        fields=("user_id", "candidate.cate"),
        counts=("impressions", "rate"),
    ),
)
"""What --statistics adds: the paper has an advertisement's CTR of 3 days."""

_INT = pa.int64()
_TEXT = pa.string()
# An advertisement without a brand says NULL. No file has quotes.
_NULLABLE = CsvFormat(null_values=("", "NULL"), quoted=False)
_PLAIN = CsvFormat(quoted=False)


def open_alibaba(raw_dir: Path) -> RawDataset:
    """Finds the four files.

    Raises:
        InputError: If a file is absent.
    """

    def table(
        name: str,
        file: str,
        reader: CsvReader,
        convert: Callable[[RawRows], None],
    ) -> RawTable:
        return RawTable(
            name=name,
            sources=(SourceFile.find(raw_dir, file),),
            reader=reader,
            convert=convert,
        )

    return RawDataset(
        schema=SCHEMA,
        impressions=table(
            "impressions", "raw_sample.csv", _SAMPLES, _convert_samples
        ),
        behaviors=table(
            "behaviors", "behavior_log.csv", _BEHAVIORS, _convert_behaviors
        ),
        users=table("users", "user_profile.csv", _USERS, _convert_users),
        items=table("items", "ad_feature.csv", _ADS, _convert_ads),
        item_key="adgroup_id",
        split=FromTime(
            time=TEST_TIME, rule="from 2017-05-13 on (UTC+8) for test"
        ),
        unique_behaviors=True,
        nouns=("candidates", "an advertisement"),
    )


_SAMPLES = CsvReader(
    columns={
        "user": _INT,
        "time_stamp": _INT,
        "adgroup_id": _INT,
        "pid": _TEXT,
        "nonclk": _INT,
        "clk": _INT,
    },
    required=("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"),
    file_format=_PLAIN,
)


def _convert_samples(rows: RawRows) -> None:
    table = rows.table
    time, click = table["time_stamp"], table["clk"]
    rows.require(
        pc.and_(
            pc.greater_equal(time, FIRST_SAMPLE_TIME), pc.less(time, END_TIME)
        ),
        "the time is not within 2017-05-06 to 2017-05-13 (UTC+8)",
        "time_stamp",
    )
    rows.require(
        pc.and_(
            pc.is_in(click, value_set=pa.array([0, 1])),
            pc.equal(pc.add(click, table["nonclk"]), 1),
        ),
        "one of `clk` and `nonclk` is 1 and the other 0",
        "clk",
        "nonclk",
    )
    rows.table = pa.table(
        {
            "user_id": table["user"],
            "time": time,
            "request": time,
            "label": click,
            "adgroup_id": table["adgroup_id"],
            "pid": table["pid"],
        }
    )


_ADS = CsvReader(
    columns={
        "adgroup_id": _INT,
        "cate_id": _INT,
        "campaign_id": _INT,
        "customer": _INT,
        "brand": _INT,
        "price": pa.float32(),
    },
    required=("adgroup_id",),
    file_format=_NULLABLE,
)


def _convert_ads(rows: RawRows) -> None:
    rows.table = rows.table.rename_columns({"cate_id": "cate"})


# An empty value is a missing one; 0 is a level like any other.
_USERS = CsvReader(
    columns={"userid": _INT, **dict.fromkeys(_PROFILE, _INT)},
    required=("userid",),
    file_format=_PLAIN,
)


def _convert_users(rows: RawRows) -> None:
    rows.table = rows.table.rename_columns({"userid": "user_id"})


_BEHAVIORS = CsvReader(
    columns={
        "user": _INT,
        "time_stamp": _INT,
        "btag": _TEXT,
        "cate": _INT,
        "brand": _INT,
    },
    required=("user", "time_stamp", "btag", "cate"),
    file_format=_NULLABLE,
)


def _convert_behaviors(rows: RawRows) -> None:
    rows.require(
        pc.is_in(rows.table["btag"], value_set=pa.array(_BEHAVIOR_KINDS)),
        f"`btag` is one of {', '.join(_BEHAVIOR_KINDS)}",
        "btag",
    )
    time = rows.table["time_stamp"]
    rows.drop_unless(
        pc.and_(
            pc.greater_equal(time, FIRST_BEHAVIOR_TIME), pc.less(time, END_TIME)
        ),
        "behaviors at an impossible time",
    )
    rows.table = rows.table.rename_columns(
        ["user_id", "time", "btag", "cate", "brand"]
    )
