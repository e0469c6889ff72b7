"""EB-NeRD: impressions and reading histories of a Danish newspaper.

The files are as Ekstra Bladet publishes them, of any size (demo, small,
large): a folder with `train/` or `validation/` or both, each with
`behaviors.parquet` and `history.parquet`, and `articles.parquet` beside them
if it is there. Their terms are for research; they are never passed on.

A row of behaviors is an impression: the articles in view are the candidates,
those clicked have label 1. Their order in the file is shuffled and means
nothing. What follows a click (`next_read_time`, `next_scroll_percentage`) and
the page's own `read_time` and `scroll_percentage`, which end after the click,
are no fields of a request.

A history is what a user had read in the three weeks before the first
impression of its folder, and behind it the clicks of earlier impressions,
since else it would be days old. How long an article was read is known of the
former alone: of a click a request may come before the reader has finished.
With both folders there, what `validation/history.parquet` says of the week of
`train/` is left out, whose clicks are there: it would stand twice. Users of
whom that week has no impression lose it.

A day of this data begins at 07:00 UTC, as its weeks do. With `validation/`
the second week is the test, without it the last day of the first.
"""

import dataclasses
import datetime
from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_rows import RawRows
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

Integers = npt.NDArray[np.int64]

FIRST_TIME = 1_684_393_200
"""2023-05-18 07:00 UTC, the first week."""

_HOUR, _DAY = 3_600, 86_400
_WEEK = 7 * _DAY

_PROFILE = {
    "device_type": pa.int64(),
    "is_sso_user": pa.int64(),
    "is_subscriber": pa.int64(),
    "gender": pa.int64(),
    "postcode": pa.int64(),
    "age": pa.int64(),
}
_ARTICLE = {
    "category": pa.int64(),
    "article_type": pa.string(),
    "premium": pa.int64(),
}
_SUBCATEGORY = "subcategory"
_MOST_SUBCATEGORIES = 4

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
        InputError: If there is neither `train` nor `validation`, or one of
            them lacks a file.
    """
    folders = [
        raw_dir / name
        for name in ("train", "validation")
        if (raw_dir / name).is_dir()
    ]
    if not folders:
        raise InputError(
            f"{raw_dir} has neither a folder train nor validation."
        )
    behaviors = _sources(folders, "behaviors.parquet")
    articles = raw_dir / "articles.parquet"
    has_articles = articles.is_file()
    return RawDataset(
        schema=make_schema(has_articles),
        impressions=RawTable(
            name="impressions",
            sources=behaviors,
            reader=ParquetReader(
                columns={
                    "impression_id": pa.int64(),
                    "user_id": pa.int64(),
                    "article_id": pa.int64(),
                    **_PROFILE,
                    **dict.fromkeys(_LISTS),
                    "impression_time": None,
                },
                required=("impression_id", "user_id"),
            ),
            convert=convert_impressions,
        ),
        behaviors=RawTable(
            name="behaviors",
            sources=(*_sources(folders, "history.parquet"), *behaviors),
            reader=_HistoryReader(),
            convert=convert_behaviors,
        ),
        items=(
            RawTable(
                name="articles",
                sources=(SourceFile(path=articles),),
                reader=ParquetReader(
                    columns={
                        "article_id": pa.int64(),
                        **_ARTICLE,
                        _SUBCATEGORY: None,
                    },
                    required=("article_id",),
                ),
                convert=_convert_articles,
            )
            if has_articles
            else None
        ),
        item_key="article",
        split=_split(folders, test_start),
        unique_behaviors=True,
        nouns=("candidates", "an article"),
    )


def make_schema(has_articles: bool) -> DatasetSchema:
    """Returns the fields, of which articles have more if there is a table."""
    of_article = [
        CategoricalField(name="article", table="article"),
        *(
            CategoricalField(name=name, table=name)
            for name in (_ARTICLE if has_articles else ())
        ),
    ]
    if has_articles:
        of_article.append(
            CategoricalField(
                name=_SUBCATEGORY,
                table=_SUBCATEGORY,
                max_values=_MOST_SUBCATEGORIES,
            )
        )
    profile = ("user_id", *_PROFILE)
    texts = {name for name, kind in _ARTICLE.items() if kind == pa.string()}
    tables = dict.fromkeys([*profile, *(field.table for field in of_article)])
    return DatasetSchema(
        name="ebnerd",
        tables=tuple(
            Table(name=name, value_type="string" if name in texts else "int")
            for name in tables
        ),
        user_fields=(
            *(CategoricalField(name=name, table=name) for name in profile),
            # What is read when the others are in view; none on a front page.
            CategoricalField(name="page", table="article"),
        ),
        behavior_fields=tuple(of_article),
        behavior_dense_fields=(
            DenseField(name="read_time", transform="log1p"),
            DenseField(name="scroll_percentage"),
        ),
        candidate_fields=tuple(of_article),
        time_zone=TimeZone.named("Europe/Copenhagen"),
    )


def convert_impressions(rows: RawRows) -> None:
    """Makes one row of each article in view."""
    table = rows.table
    time = _seconds(rows, table["impression_time"], "impression_time")
    shown, parent = _flat(table["article_ids_inview"])
    clicked, click_parent = _flat(table["article_ids_clicked"])
    rows.require(
        np.bincount(parent, minlength=len(table)) < 1 << _POSITION_BITS,
        f"an impression has less than {1 << _POSITION_BITS:,} articles in view",
    )
    # Article ids are below 2^31, and a block of rows has less than 2^17.
    label = np.isin(
        (parent << 32) | shown, (click_parent << 32) | clicked
    ).astype(np.int64)
    position = np.arange(len(parent)) - np.searchsorted(parent, parent)
    repeated = table.select(
        ["impression_id", "user_id", "article_id", *_PROFILE]
    ).take(pa.array(parent))
    names = {"impression_id": "request", "article_id": "page"}
    rows.table = (
        repeated.rename_columns(
            [names.get(name, name) for name in repeated.column_names]
        )
        .append_column("time", pa.array(time[parent]))
        .append_column("article", pa.array(shown))
        .append_column("label", pa.array(label))
    )
    rows.row = (rows.row[parent] << _POSITION_BITS) | position


def convert_behaviors(rows: RawRows) -> None:
    """Makes one row of each article that was read, or clicked."""
    table = rows.table
    if "article_id_fixed" in table.column_names:
        article, parent = _flat(table["article_id_fixed"])
        times = _flat_lists(rows, "impression_time_fixed", parent)
        time = _seconds(
            rows.of("impression_time_fixed", times, parent),
            pa.chunked_array([times]),
            "impression_time_fixed",
        )
        numbers = {
            name: _flat_lists(rows, f"{name}_fixed", parent).cast(pa.float32())
            for name in _NUMBERS
        }
    else:
        article, parent = _flat(table["article_ids_clicked"])
        time = _seconds(rows, table["impression_time"], "impression_time")
        time = time[parent]
        numbers = {
            name: pa.nulls(len(parent), pa.float32()) for name in _NUMBERS
        }
    place = np.arange(len(parent)) - np.searchsorted(parent, parent)
    user = table["user_id"].take(pa.array(parent))
    rows.row = (rows.row[parent] << _POSITION_BITS) | place
    rows.table = pa.table(
        {"user_id": user, "time": time, "article": article, **numbers}
    )


_LISTS = ("article_ids_inview", "article_ids_clicked")
_NUMBERS = ("read_time", "scroll_percentage")

_POSITION_BITS = 16
"""Rows are numbered by their impression's row and their place in it."""


_HISTORY = ParquetReader(
    columns={
        "user_id": pa.int64(),
        "article_id_fixed": None,
        "impression_time_fixed": None,
        "read_time_fixed": None,
        "scroll_percentage_fixed": None,
    },
    required=("user_id",),
)
_CLICKS = ParquetReader(
    columns={
        "user_id": pa.int64(),
        "article_ids_clicked": None,
        "impression_time": None,
    },
    required=("user_id",),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HistoryReader:
    """Reads histories and impressions, which have other columns."""

    def _reader(self, source: SourceFile) -> ParquetReader:
        is_history = source.path.name == "history.parquet"
        return _HISTORY if is_history else _CLICKS

    def schema(self, source: SourceFile) -> pa.Schema:
        """Returns names and types of the columns that `read` yields."""
        return self._reader(source).schema(source)

    def ranges(
        self, source: SourceFile, range_bytes: int
    ) -> list[tuple[int, int | None]]:
        """Returns ranges that can be read by themselves, in order."""
        return self._reader(source).ranges(source, range_bytes)

    def read(
        self, source: SourceFile, start: int = 0, end: int | None = None
    ) -> Generator[RawRows]:
        """Yields the rows of one of them."""
        is_second = source.path.parent.name == "validation"
        has_first = (source.path.parent.parent / "train").is_dir()
        for rows in self._reader(source).read(source, start, end):
            if is_second and has_first:
                _leave_out_first_week(rows)
            yield rows

    def where(self, source: SourceFile, start: int, row: int) -> str:
        """Tells where a row stands."""
        return self._reader(source).where(source, start, row)


def _leave_out_first_week(rows: RawRows) -> None:
    """Cuts histories at the first week, of which the clicks are there."""
    table = rows.table
    if "article_id_fixed" not in table.column_names:
        return
    _, parent = _flat(table["article_id_fixed"])
    times = _flat_lists(rows, "impression_time_fixed", parent)
    seconds = times.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    kept = pc.less(seconds, FIRST_TIME).to_numpy(zero_copy_only=False)
    counts = np.bincount(parent[kept], minlength=len(table))
    offset = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    for place, name in enumerate(table.column_names):
        if name == "user_id":
            continue
        values = _flat_lists(rows, name, parent).filter(pa.array(kept))
        lists = pa.ListArray.from_arrays(offset, values)
        table = table.set_column(place, name, pa.chunked_array([lists]))
    rows.table = table


def _flat(column: pa.ChunkedArray) -> tuple[Integers, Integers]:
    """Returns the integers of lists, and for each the row that it is in."""
    lists = column.combine_chunks()
    values = lists.flatten().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values, _parent(lists)


def _parent(lists: pa.Array) -> Integers:
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return np.repeat(np.arange(len(lists)), counts)


def _flat_lists(rows: RawRows, name: str, parent: Integers) -> pa.Array:
    """Returns the values of lists that are as long as those of `parent`."""
    lists = rows.table[name].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    expected = np.bincount(parent, minlength=len(lists))
    rows.require(
        counts == expected,
        f"the lists `{name}` and `article_id_fixed` differ in length",
    )
    return lists.flatten()


def _seconds(rows: RawRows, times: pa.ChunkedArray, name: str) -> Integers:
    rows.require(times.is_valid(), f"`{name}` is missing")
    if not pa.types.is_timestamp(times.type):
        raise InputError(
            f"`{name}` must be a timestamp. Received: {times.type}"
        )
    whole = times.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    seconds: Integers = whole.to_numpy()
    return seconds


def _convert_articles(rows: RawRows) -> None:
    table = rows.table.rename_columns(["article", *_ARTICLE, _SUBCATEGORY])
    place = table.column_names.index(_SUBCATEGORY)
    lists = table[_SUBCATEGORY].cast(pa.list_(pa.int64()))
    rows.table = table.set_column(place, _SUBCATEGORY, lists)


def _sources(folders: list[Path], name: str) -> tuple[SourceFile, ...]:
    for folder in folders:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}.")
    return tuple(SourceFile(path=folder / name) for folder in folders)


def _split(folders: list[Path], test_start: datetime.date | None) -> FromTime:
    if test_start is not None:
        start = datetime.datetime.combine(
            test_start, datetime.time(7), datetime.UTC
        )
        time = int(start.timestamp())
    elif folders[-1].name == "validation":
        time = FIRST_TIME + _WEEK
    else:
        time = FIRST_TIME + _WEEK - _DAY
    moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return FromTime(time=time, rule=f"from {moment:%Y-%m-%d %H:%M} UTC on")
