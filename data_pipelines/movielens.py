"""MovieLens 1M: every rating is an impression, liked or not.

Raw files, as GroupLens publishes them (no header, `::` between values):
`ratings.dat` (user, movie, rating, Unix seconds), `users.dat` (user, gender,
age, occupation, zip code) and `movies.dat` (movie, title, genres; latin-1).

A request is one user in one second: users enter several ratings at once. Its
history is all ratings before that second. The label is a rating of 4 or 5.
The first 90 % of all ratings by time are for training; the ratings of one
second stay on one side.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.csv_files import CsvFile, CsvFormat
from data_pipelines.raw_dataset import LATEST_TIME, RawDataset
from data_pipelines.source_file import SourceFile
from sparsectr.schema import CategoricalField, DatasetSchema, Table

TRAIN_FRACTION = 0.9
LIKED = 4
"""Lowest rating that counts as a click."""

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
        Table(name="year", min_count=2),
        Table(name="rating"),
    ),
    user_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("user_id", "gender", "age", "occupation", "zip")
    ),
    behavior_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("movie_id", "genres", "year", "rating")
    ),
    candidate_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("movie_id", "genres", "year")
    ),
    utc_offset_hours=0,
)

_INT = pa.int64()
_TEXT = pa.string()


def read_movielens(raw_dir: Path) -> RawDataset:
    """Reads the three official files.

    Raises:
        InputError: If a file is absent or a row is not as documented.
    """
    ratings = _read(
        raw_dir,
        "ratings.dat",
        {"user_id": _INT, "movie_id": _INT, "rating": _INT, "time": _INT},
    )
    users = _read(
        raw_dir,
        "users.dat",
        {
            "user_id": _INT,
            "gender": _TEXT,
            "age": _INT,
            "occupation": _INT,
            "zip": _TEXT,
        },
    )
    movies = _read(
        raw_dir,
        "movies.dat",
        {"movie_id": _INT, "title": _TEXT, "genres": _TEXT},
    )
    users.require_unique("user_id")
    movies.require_unique("movie_id")
    rating, time = ratings.table["rating"], ratings.table["time"]
    ratings.require(
        pc.and_(pc.greater_equal(rating, 1), pc.less_equal(rating, 5)),
        "a rating is 1 to 5",
        "rating",
    )
    ratings.require(
        pc.and_(pc.greater(time, 0), pc.less(time, LATEST_TIME)),
        "the time is not in Unix seconds",
        "time",
    )
    rated = _with_movie(ratings.table, movies.table)
    return RawDataset(
        schema=SCHEMA,
        users=_with_short_zip(users.table),
        behaviors=rated,
        impressions=rated.append_column("request", time).append_column(
            "label", pc.cast(pc.greater_equal(rating, LIKED), _INT)
        ),
        test_time=_test_time(time),
        split=f"first {TRAIN_FRACTION:.0%} of all ratings by time for training",
        dropped={},
        incomplete={
            "ratings of a movie without features": rated["genres"].null_count
        },
        sources=(ratings.source, users.source, movies.source),
    )


def _read(raw_dir: Path, name: str, columns: dict[str, pa.DataType]) -> CsvFile:
    return CsvFile(
        SourceFile.find(raw_dir, name),
        columns,
        required=tuple(columns),
        file_format=CsvFormat(
            delimiter="::",
            column_names=tuple(columns),
            encoding="latin-1" if name == "movies.dat" else "utf-8",
            quoted=False,
        ),
    )


def _with_movie(ratings: pa.Table, movies: pa.Table) -> pa.Table:
    """Adds genres and year of the rated movie, null where it is unknown."""
    year = pc.struct_field(
        pc.extract_regex(movies["title"], r"\((?P<year>\d{4})\)\s*$"), "year"
    )
    place = pc.index_in(ratings["movie_id"], value_set=movies["movie_id"])
    return ratings.append_column(
        "genres", movies["genres"].take(place)
    ).append_column("year", pc.cast(year, _INT).take(place))


def _with_short_zip(users: pa.Table) -> pa.Table:
    """Keeps the first three digits of the zip code, which name a region."""
    short = pc.utf8_slice_codeunits(users["zip"], 0, 3)
    return users.set_column(users.column_names.index("zip"), "zip", short)


def _test_time(time: pa.ChunkedArray) -> int:
    ordered = np.sort(time.to_numpy())
    if not len(ordered):
        return 0
    return int(ordered[int(TRAIN_FRACTION * len(ordered))])
