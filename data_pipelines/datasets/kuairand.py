"""KuaiRand: exposures of a short-video feed, clicked or not.

Raw files of KuaiRand-Pure, -1K and -27K, where `<v>` is pure, 1k or 27k:
`log_standard_*_<v>.csv` (also in parts, `..._<v>_part1.csv`),
`user_features_<v>.csv` and `video_features_basic_<v>.csv`.

A request is a user in one millisecond: the feed mostly shows one video after
another. Its history is the user's exposures before that second, with what the
user made of them. The label is `is_click`. The last day, UTC+8, is the test
split. `date` and `hourmin` in the files are wrong for some rows and not used.

The tags of a video are there twice: `tags` is the set of them, `tag` their
combination as the file writes it, an id that statistics can be of. Durations
of videos are in milliseconds, as in the file.

How long an exposure was watched (`play_time`, seconds, of `play_time_ms`)
follows it, and so do the feedback and nothing else: both are fields of a
behavior, which a request later than the exposure's second reads, and never of
a candidate. It is known when the watching has ended, so that a request before
that sees what a live system would not have yet: in the six days of
KuaiRand-Pure 30 of 69,954 requests with a history, and in each of them the
newest behavior alone (30 of 341,724 behaviors in histories).

Not read: `video_features_statistic_<v>.csv`. Its counts are of the whole
period, the test in it; those of `STATISTICS` are of what was before.
"""

import datetime
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.csv_reader import CsvReader
from data_pipelines.raw.raw_dataset import (
    EXACT_TIME,
    RawDataset,
    earlier_impressions,
)
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable, keep
from data_pipelines.raw.set_column import set_column
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import (
    FromTime,
    LastDay,
    SplitRule,
    describe_day,
)
from sparsectr.errors import InputError
from sparsectr.schema import (
    LATEST_TIME,
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic
from sparsectr.time_zone import TimeZone

TIME_ZONE = TimeZone.fixed(8 * 60)

_PROFILE = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
_VIDEO = ("author_id", "music_id", "tag", "video_type", "upload_type")
_TAGS = CategoricalField(name="tags", table="tags", max_values=4)
"""A video of KuaiRand-Pure has at most three."""
_CLICK, _LONG_VIEW, _LIKE = 1, 2, 4
"""Bits of the feedback to an earlier exposure."""

# Where a value must be seen twice to have a row of its own, the others train
# the out-of-vocabulary row, which new users and videos of the test then use.
SCHEMA = DatasetSchema(
    name="kuairand",
    tables=(
        Table(name="user_id", min_count=2),
        *(Table(name=name, value_type="string") for name in _PROFILE),
        Table(name="video_id", min_count=2),
        Table(name="author_id", min_count=2),
        Table(name="music_id", min_count=2),
        Table(name="tag", value_type="string", min_count=2),
        Table(name="tags"),
        Table(name="video_type", value_type="string"),
        Table(name="upload_type", value_type="string"),
        Table(name="tab"),
        Table(name="feedback"),
    ),
    user_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("user_id", *_PROFILE)
    ),
    behavior_fields=(
        *(
            CategoricalField(name=name, table=name)
            for name in ("video_id", "author_id", "tag", "tab", "feedback")
        ),
        _TAGS,
    ),
    candidate_fields=(
        *(
            CategoricalField(name=name, table=name)
            for name in ("video_id", *_VIDEO, "tab")
        ),
        _TAGS,
    ),
    behavior_dense_fields=(
        DenseField(name="video_duration", transform="log1p"),
        DenseField(name="play_time", transform="log1p"),
    ),
    candidate_dense_fields=(
        DenseField(name="video_duration", transform="log1p"),
    ),
    time_zone=TIME_ZONE,
)

_HOUR, _DAY = 3_600, 86_400

STATISTICS = (
    Statistic(
        name="video",
        fields=("candidate.video_id",),
        counts=("impressions", "clicks", "rate", "age"),
        windows=(_HOUR, _DAY, None),
    ),
    *(
        Statistic(
            name=name,
            fields=(f"candidate.{field}",),
            counts=("impressions", "rate"),
            windows=(_DAY, None),
        )
        for name, field in (("author", "author_id"), ("tag", "tag"))
    ),
    Statistic(
        name="user_tag",
        fields=("user_id", "candidate.tag"),
        counts=("impressions", "rate"),
        windows=(_DAY, None),
    ),
)
"""What --statistics adds."""

_EARLIEST_MS = 100_000_000_000
"""Milliseconds of 1973: what is less must have been seconds."""

_INT = pa.int64()
_TEXT = pa.string()
_PLAY_TIME = "play_time_ms"
_FLAGS = ("is_click", "long_view", "is_like")
_LOG_COLUMNS = {
    "user_id": _INT,
    "video_id": _INT,
    "time_ms": _INT,
    "tab": _INT,
    **dict.fromkeys(_FLAGS, _INT),
    _PLAY_TIME: _INT,
}
_VIDEO_COLUMNS = {
    "video_id": _INT,
    "author_id": _INT,
    "music_id": _INT,
    "tag": _TEXT,
    "video_type": _TEXT,
    "upload_type": _TEXT,
    "video_duration": pa.float32(),
}


def open_kuairand(
    raw_dir: Path, *, test_start: datetime.date | None = None
) -> RawDataset:
    """Finds the files of exposures, users and videos.

    Args:
        raw_dir: Folder of the raw files.
        test_start: First day of the test split, UTC+8; the default is the
            last day there is.

    Raises:
        InputError: If a file is absent.
    """
    version = _version(raw_dir)
    split: SplitRule = LastDay(time_zone=TIME_ZONE)
    if test_start is not None:
        test_time = TIME_ZONE.start_of_day(test_start)
        split = FromTime(
            time=test_time, rule=describe_day(test_time, TIME_ZONE)
        )
    return RawDataset(
        schema=SCHEMA,
        impressions=RawTable(
            name="impressions",
            sources=tuple(
                SourceFile(path=path) for path in _log_paths(raw_dir, version)
            ),
            reader=CsvReader(
                columns=_LOG_COLUMNS,
                required=tuple(n for n in _LOG_COLUMNS if n != _PLAY_TIME),
            ),
            convert=_convert_log,
        ),
        behaviors=earlier_impressions,
        users=RawTable(
            name="users",
            sources=(SourceFile.find(raw_dir, f"user_features_{version}.csv"),),
            reader=CsvReader(
                columns={"user_id": _INT, **dict.fromkeys(_PROFILE, _TEXT)},
                required=("user_id",),
            ),
            convert=keep,
        ),
        items=RawTable(
            name="items",
            sources=(
                SourceFile.find(raw_dir, f"video_features_basic_{version}.csv"),
            ),
            reader=CsvReader(columns=_VIDEO_COLUMNS, required=("video_id",)),
            convert=_convert_videos,
        ),
        item_key="video_id",
        split=split,
        unique_impressions=("user_id", "video_id", "request"),
        nouns=("exposures", "a video"),
    )


def _version(raw_dir: Path) -> str:
    pattern = re.compile(
        r"user_features_(pure|1k|27k)\.csv(\.gz|\.tar\.gz|\.zip)?"
    )
    if not raw_dir.is_dir():
        raise InputError(f"{raw_dir} is not a folder.")
    matches = [pattern.fullmatch(path.name) for path in raw_dir.iterdir()]
    versions = sorted({match[1] for match in matches if match})
    if len(versions) != 1:
        raise InputError(
            f"{raw_dir} must have the files of one version, "
            "user_features_<pure, 1k or 27k>.csv and others. "
            f"Received: {', '.join(versions) or 'none of them'}"
        )
    return versions[0]


def _log_paths(raw_dir: Path, version: str) -> list[Path]:
    pattern = re.compile(
        rf"log_standard_.+_{version}(_part\d+)?\.csv(\.gz|\.tar\.gz|\.zip)?"
    )
    paths = [p for p in raw_dir.iterdir() if pattern.fullmatch(p.name)]
    if not paths:
        raise InputError(f"{raw_dir} has no file log_standard_*_{version}.csv.")
    return sorted(paths)


def _convert_log(rows: RawRows) -> None:
    """Adds seconds, label, feedback and how long it was watched."""
    table = rows.table
    milliseconds = table["time_ms"]
    rows.require(
        pc.and_(
            pc.greater_equal(milliseconds, _EARLIEST_MS),
            pc.less(milliseconds, 1000 * LATEST_TIME),
        ),
        "the time is not in Unix milliseconds",
        "time_ms",
    )
    for name in _FLAGS:
        rows.require(
            pc.is_in(table[name], value_set=pa.array([0, 1])),
            f"`{name}` is 0 or 1",
            name,
        )
    feedback = pc.add(
        pc.multiply(table["is_click"], _CLICK),
        pc.add(
            pc.multiply(table["long_view"], _LONG_VIEW),
            pc.multiply(table["is_like"], _LIKE),
        ),
    )
    rows.table = pa.table(
        {
            "user_id": table["user_id"],
            "time": pc.divide(milliseconds, 1000),
            EXACT_TIME: milliseconds,
            "request": milliseconds,
            "label": table["is_click"],
            "video_id": table["video_id"],
            "tab": table["tab"],
            "feedback": feedback,
            "play_time": _seconds(table[_PLAY_TIME]),
        }
    )


def _seconds(milliseconds: pa.ChunkedArray) -> pa.ChunkedArray:
    exact = pc.cast(milliseconds, pa.float64(), safe=False)
    return pc.cast(pc.divide(exact, 1000.0), pa.float32())


def _convert_videos(rows: RawRows) -> None:
    """Adds the tags one by one."""
    rows.table = rows.table.append_column(
        "tags", set_column(rows, "tag", _INT, ",")
    )
