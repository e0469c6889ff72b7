"""EB-NeRD: impressions and reading histories of a Danish newspaper.

The files are as Ekstra Bladet publishes them, of any size (demo, small,
large): a folder with `train/` or `validation/` or both, each with
`behaviors.parquet` and `history.parquet`, and `articles.parquet` beside them
if it is there. Their terms are for research; they are never passed on.

A row of behaviors is an impression: the articles in view are the candidates,
those clicked have label 1. Their order in the file is shuffled and means
nothing. What follows a click (`next_read_time`, `next_scroll_percentage`) and
the page's own `read_time` and `scroll_percentage`, which end after the click,
are no fields of a request; nor are an article's totals (`total_inviews` and
the like), which count what comes after.

A history is what a user had read in the three weeks before the first
impression of its folder, and behind it the clicks of the folder's earlier
impressions, since else it would be days old. How long an article was read is
known of the former alone: of a click a request may come before the reader has
finished.

With both folders there a reader of both is two users, as in the files: the
second has the history of `validation/`, which repeats the two weeks that both
histories have and says more of the week of `train/` than its clicks do (in the
demo 85,730 readings, of which the impressions have a third). Training and test
so have histories of one form. `user_id` of the second is larger by 2^32; the
field `reader_id` is that of the person.

A day of this data begins at 07:00 UTC, as its weeks do. With both folders the
second week is the test, with one the last day of its week.
"""

import datetime
from pathlib import Path

import pyarrow as pa

from data_pipelines.datasets.ebnerd_rows import (
    ARTICLE_COLUMNS,
    BEHAVIOR_READERS,
    IMPRESSION_READERS,
    NUMBERS,
    PROFILE_COLUMNS,
    READER,
    SUBCATEGORY,
    FolderReader,
    check_types,
    convert_articles,
    convert_behaviors,
    convert_impressions,
)
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import FromTime
from sparsectr.errors import InputError
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic
from sparsectr.time_zone import TimeZone

FIRST_TIME = 1_684_393_200
"""2023-05-18 07:00 UTC: the first week, that of `train`, begins."""

_HOUR, _DAY = 3_600, 86_400
_WEEK = 7 * _DAY

_WEEKS = {"train": FIRST_TIME, "validation": FIRST_TIME + _WEEK}
"""The folders, and when their impressions begin."""

_MOST_SUBCATEGORIES = 4

# Readers seen once train the out-of-vocabulary row, which new readers then use.
# Not so articles: those that a week shows once are old ones, and the unknown
# ones, two thirds of a next day, are new (benchmarks/LOG.md).
_SEEN_TWICE = (READER,)

STATISTICS = (
    Statistic(
        name="article",
        fields=("candidate.article",),
        counts=("impressions", "clicks", "rate", "age"),
        windows=(_HOUR, _DAY, None),
        bucket=600,
    ),
    # An article that was shown and passed over is seldom clicked later.
    Statistic(
        name="user_article",
        fields=("user_id", "candidate.article"),
        counts=("impressions", "clicks"),
        bucket=60,
    ),
)
"""What --statistics adds."""


def open_ebnerd(
    raw_dir: Path, *, test_start: datetime.date | None = None
) -> RawDataset:
    """Finds the files that there are.

    Args:
        raw_dir: Folder of one size.
        test_start: First day of the test; it begins at 07:00 UTC.

    Raises:
        InputError: If there is neither `train` nor `validation`, one of them
            lacks a file, or a file is not of the published columns.
    """
    folders = [raw_dir / name for name in _WEEKS if (raw_dir / name).is_dir()]
    if not folders:
        raise InputError(
            f"{raw_dir} has neither a folder train nor validation."
        )
    impressions = _sources(folders, "behaviors.parquet")
    articles = raw_dir / "articles.parquet"
    has_articles = articles.is_file()
    dataset = RawDataset(
        schema=make_schema(has_articles),
        impressions=RawTable(
            name="impressions",
            sources=impressions,
            reader=FolderReader(
                readers=IMPRESSION_READERS, has_first=len(folders) > 1
            ),
            convert=convert_impressions,
        ),
        behaviors=RawTable(
            name="behaviors",
            sources=(*_sources(folders, "history.parquet"), *impressions),
            reader=FolderReader(
                readers=BEHAVIOR_READERS, has_first=len(folders) > 1
            ),
            convert=convert_behaviors,
        ),
        items=(
            RawTable(
                name="articles",
                sources=(SourceFile(path=articles),),
                reader=ParquetReader(
                    columns={
                        "article_id": pa.int64(),
                        **ARTICLE_COLUMNS,
                        SUBCATEGORY: None,
                    },
                    required=("article_id",),
                ),
                convert=convert_articles,
            )
            if has_articles
            else None
        ),
        item_key="article",
        split=_split(folders, test_start),
        unique_behaviors=True,
        nouns=("candidates", "an article"),
    )
    for table in dataset.tables:
        check_types(table.reader, table.sources)
    return dataset


def make_schema(has_articles: bool) -> DatasetSchema:
    """Returns the fields, of which articles have more if there is a table."""
    of_article = [CategoricalField(name="article", table="article")]
    if has_articles:
        of_article += [
            *(
                CategoricalField(name=name, table=name)
                for name in ARTICLE_COLUMNS
            ),
            CategoricalField(
                name=SUBCATEGORY,
                table=SUBCATEGORY,
                max_values=_MOST_SUBCATEGORIES,
            ),
        ]
    profile = (READER, *PROFILE_COLUMNS)
    return DatasetSchema(
        name="ebnerd",
        tables=tuple(
            Table(
                name=name,
                value_type=(
                    "string"
                    if ARTICLE_COLUMNS.get(name) == pa.string()
                    else "int"
                ),
                min_count=2 if name in _SEEN_TWICE else 1,
            )
            for name in (*profile, *(field.table for field in of_article))
        ),
        user_fields=(
            *(CategoricalField(name=name, table=name) for name in profile),
            # What is read when the others are in view; none on a front page.
            CategoricalField(name="page", table="article"),
        ),
        behavior_fields=tuple(of_article),
        behavior_dense_fields=tuple(
            DenseField(name=name, transform="log1p")
            if name == "read_time"
            else DenseField(name=name)
            for name in NUMBERS
        ),
        candidate_fields=tuple(of_article),
        time_zone=TimeZone.named("Europe/Copenhagen"),
    )


def _sources(folders: list[Path], name: str) -> tuple[SourceFile, ...]:
    for folder in folders:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}.")
    return tuple(SourceFile(path=folder / name) for folder in folders)


def _split(folders: list[Path], test_start: datetime.date | None) -> FromTime:
    time = _WEEKS[folders[-1].name]
    if test_start is not None:
        start = datetime.datetime.combine(
            test_start, datetime.time(7), datetime.UTC
        )
        time = int(start.timestamp())
    elif len(folders) == 1:
        time += _WEEK - _DAY
    moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return FromTime(time=time, rule=f"from {moment:%Y-%m-%d %H:%M} UTC on")
