"""Alibaba display advertisements (Tianchi 56): impressions, clicked or not.

Raw files: `raw_sample.csv` (impressions), `ad_feature.csv`,
`user_profile.csv` and `behavior_log.csv`, each also as `.csv.gz` or
`.csv.tar.gz`. The built-in synthetic sample has the same form.

A request is a user in one second. Its history is the user's behaviors before
that second; the log overlaps the impressions, so the cut is what keeps the
answer out of the question. Behaviors carry no advertisement: they share only
category and brand with the candidates. The eighth day of impressions
(2017-05-13 in China) is the test split.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.csv_files import CsvFile, CsvFormat
from data_pipelines.raw_dataset import RawDataset
from data_pipelines.source_file import SourceFile
from data_pipelines.tables import drop_duplicates, look_up
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

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
    utc_offset_hours=8,
)

_INT = pa.int64()
_TEXT = pa.string()
# An advertisement without a brand says NULL. No file has quotes.
_NULLABLE = CsvFormat(null_values=("", "NULL"), quoted=False)
_PLAIN = CsvFormat(quoted=False)
_Read = tuple[pa.Table, SourceFile]


def read_alibaba(raw_dir: Path) -> RawDataset:
    """Reads the four files.

    Raises:
        InputError: If a file is absent or a row is not as documented.
    """
    samples, sample_source = _read_samples(raw_dir)
    ads, ad_source = _read_ads(raw_dir)
    users, user_source = _read_users(raw_dir)
    log, log_source = _read_behaviors(raw_dir)
    impressions, num_unknown_ads = look_up(samples, "adgroup_id", ads)
    # Impossible times go first: a repeated one then counts once for each row.
    valid = pc.and_(
        pc.greater_equal(log["time"], FIRST_BEHAVIOR_TIME),
        pc.less(log["time"], END_TIME),
    )
    possible = log.filter(valid)
    behaviors, num_repeated = drop_duplicates(possible, possible.column_names)
    return RawDataset(
        schema=SCHEMA,
        users=users,
        behaviors=behaviors,
        impressions=impressions.append_column("request", impressions["time"]),
        test_time=TEST_TIME,
        split="from 2017-05-13 on (UTC+8) for test",
        dropped={
            "behaviors at an impossible time": len(log) - len(possible),
            "repeated behaviors": num_repeated,
        },
        incomplete={
            "candidates of an advertisement without features": num_unknown_ads
        },
        sources=(sample_source, ad_source, user_source, log_source),
    )


def _read_samples(raw_dir: Path) -> _Read:
    samples = CsvFile(
        SourceFile.find(raw_dir, "raw_sample.csv"),
        {
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
    table = samples.table
    time, click = table["time_stamp"], table["clk"]
    samples.require(
        pc.and_(
            pc.greater_equal(time, FIRST_SAMPLE_TIME), pc.less(time, END_TIME)
        ),
        "the time is not within 2017-05-06 to 2017-05-13 (UTC+8)",
        "time_stamp",
    )
    samples.require(
        pc.and_(
            pc.is_in(click, value_set=pa.array([0, 1])),
            pc.equal(pc.add(click, table["nonclk"]), 1),
        ),
        "one of `clk` and `nonclk` is 1 and the other 0",
        "clk",
        "nonclk",
    )
    renamed = table.rename_columns(
        ["user_id", "time", "adgroup_id", "pid", "nonclk", "label"]
    )
    return renamed, samples.source


def _read_ads(raw_dir: Path) -> _Read:
    ads = CsvFile(
        SourceFile.find(raw_dir, "ad_feature.csv"),
        {
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
    ads.require_unique("adgroup_id")
    renamed = ads.table.rename_columns(
        ["adgroup_id", "cate", "campaign_id", "customer", "brand", "price"]
    )
    return renamed, ads.source


def _read_users(raw_dir: Path) -> _Read:
    # An empty value is a missing one; 0 is a level like any other.
    users = CsvFile(
        SourceFile.find(raw_dir, "user_profile.csv"),
        {"userid": _INT, **dict.fromkeys(_PROFILE, _INT)},
        required=("userid",),
        file_format=_PLAIN,
    )
    users.require_unique("userid")
    renamed = users.table.rename_columns(["user_id", *_PROFILE])
    return renamed, users.source


def _read_behaviors(raw_dir: Path) -> _Read:
    log = CsvFile(
        SourceFile.find(raw_dir, "behavior_log.csv"),
        {
            "user": _INT,
            "time_stamp": _INT,
            "btag": _TEXT,
            "cate": _INT,
            "brand": _INT,
        },
        required=("user", "time_stamp", "btag", "cate"),
        file_format=_NULLABLE,
    )
    log.require(
        pc.is_in(log.table["btag"], value_set=pa.array(_BEHAVIOR_KINDS)),
        f"`btag` is one of {', '.join(_BEHAVIOR_KINDS)}",
        "btag",
    )
    renamed = log.table.rename_columns(
        ["user_id", "time", "btag", "cate", "brand"]
    )
    return renamed, log.source
