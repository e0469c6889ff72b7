"""MovieLens 1M: every rating is an impression, liked or not.

Raw files, as GroupLens publishes them (no header, `::` between values):
`ratings.dat` (user, movie, rating, Unix seconds), `users.dat` (user, gender,
age, occupation, zip code) and `movies.dat` (movie, title, genres; latin-1).

A request is one user in one second: users enter several ratings at once. Its
history is all ratings before that second. The label is a rating of 4 or 5.
The first 90 % of all ratings by time are for training; the ratings of one
second stay on one side.

The genres of a movie are there twice: `genre` is the set of them, `genres` the
combination as the file writes it, an id that statistics can be of. `year` is
the plain year, a number, missing where the title does not end in one.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.csv_reader import CsvFormat, CsvReader
from data_pipelines.raw.raw_dataset import (
    RawDataset,
    earlier_impressions,
)
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.set_column import set_column
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import LastFraction
from sparsectr.schema import (
    LATEST_TIME,
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic

TRAIN_FRACTION = 0.9
LIKED = 4
"""Lowest rating that counts as a click."""

_MOST_GENRES = 6
"""No movie has more."""

_OF_MOVIE = (
    CategoricalField(name="movie_id", table="movie_id"),
    CategoricalField(name="genres", table="genres"),
    CategoricalField(name="genre", table="genre", max_values=_MOST_GENRES),
)

# Where a value must be seen twice to have a row of its own, the others train
# the out-of-vocabulary row, which new users and movies of the test then use.
SCHEMA = DatasetSchema(
    name="movielens",
    tables=(
        Table(name="user_id", min_count=2),
        Table(name="gender", value_type="string"),
        Table(name="age"),
        Table(name="occupation"),
        Table(name="zip", value_type="string", min_count=2),
        Table(name="movie_id", min_count=2),
        Table(name="genres", value_type="string", min_count=2),
        Table(name="genre", value_type="string"),
        Table(name="rating"),
    ),
    user_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("user_id", "gender", "age", "occupation", "zip")
    ),
    behavior_fields=(
        *_OF_MOVIE,
        CategoricalField(name="rating", table="rating"),
    ),
    candidate_fields=_OF_MOVIE,
    behavior_dense_fields=(DenseField(name="year"),),
    candidate_dense_fields=(DenseField(name="year"),),
)

_DAY = 86_400

STATISTICS = (
    Statistic(
        name="movie",
        fields=("candidate.movie_id",),
        counts=("impressions", "clicks", "rate", "age"),
        windows=(30 * _DAY, None),
        bucket=_DAY,
    ),
    Statistic(
        name="genres",
        fields=("candidate.genres",),
        counts=("impressions", "rate"),
    ),
    # Most users enter all their ratings within an hour.
    Statistic(
        name="user_genres",
        fields=("user_id", "candidate.genres"),
        counts=("impressions", "rate"),
        bucket=60,
    ),
)
"""What --statistics adds, over spans that suit three years of ratings."""

_INT = pa.int64()
_TEXT = pa.string()


def open_movielens(raw_dir: Path) -> RawDataset:
    """Finds the three official files.

    Raises:
        InputError: If a file is absent.
    """
    return RawDataset(
        schema=SCHEMA,
        impressions=_table(
            raw_dir,
            "impressions",
            "ratings.dat",
            {"user_id": _INT, "movie_id": _INT, "rating": _INT, "time": _INT},
            _convert_ratings,
        ),
        behaviors=earlier_impressions,
        users=_table(
            raw_dir,
            "users",
            "users.dat",
            {
                "user_id": _INT,
                "gender": _TEXT,
                "age": _INT,
                "occupation": _INT,
                "zip": _TEXT,
            },
            _convert_users,
        ),
        items=_table(
            raw_dir,
            "items",
            "movies.dat",
            {"movie_id": _INT, "title": _TEXT, "genres": _TEXT},
            _convert_movies,
        ),
        item_key="movie_id",
        split=LastFraction(fraction=TRAIN_FRACTION, noun="ratings"),
        nouns=("ratings", "a movie"),
    )


def _table(
    raw_dir: Path,
    name: str,
    file: str,
    columns: dict[str, pa.DataType],
    convert: Callable[[RawRows], None],
) -> RawTable:
    return RawTable(
        name=name,
        sources=(SourceFile.find(raw_dir, file),),
        reader=CsvReader(
            columns=columns,
            required=tuple(columns),
            file_format=CsvFormat(
                delimiter="::",
                column_names=tuple(columns),
                encoding="latin-1" if file == "movies.dat" else "utf-8",
                quoted=False,
            ),
        ),
        convert=convert,
    )


def _convert_ratings(rows: RawRows) -> None:
    rating, time = rows.table["rating"], rows.table["time"]
    rows.require(
        pc.and_(pc.greater_equal(rating, 1), pc.less_equal(rating, 5)),
        "a rating is 1 to 5",
        "rating",
    )
    rows.require(
        pc.and_(pc.greater(time, 0), pc.less(time, LATEST_TIME)),
        "the time is not in Unix seconds",
        "time",
    )
    label = pc.cast(pc.greater_equal(rating, LIKED), _INT)
    rows.table = rows.table.append_column("request", time).append_column(
        "label", label
    )


def _convert_users(rows: RawRows) -> None:
    """Keeps the first three digits of the zip code, which name a region."""
    users = rows.table
    short = pc.utf8_slice_codeunits(users["zip"], 0, 3)
    rows.table = users.set_column(users.column_names.index("zip"), "zip", short)


def _convert_movies(rows: RawRows) -> None:
    """Splits the genres, and takes the year from the end of the title."""
    movies = rows.table
    year = pc.struct_field(
        pc.extract_regex(movies["title"], r"\((?P<year>\d{4})\)\s*$"), "year"
    )
    rows.table = (
        movies.drop_columns(["title"])
        .append_column("year", pc.cast(year, pa.float32()))
        .append_column("genre", set_column(rows, "genres", _TEXT, "|"))
    )
