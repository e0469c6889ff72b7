"""What a store of raw MovieLens files must hold, read plainly and slowly."""

import re
from pathlib import Path

from tests.data_pipelines.decoded_store import Values
from tests.data_pipelines.reference_files import read_text
from tests.data_pipelines.reference_listwise import (
    Behavior,
    Expected,
    Fields,
    Impression,
    Raw,
    build,
)

FIELDS = Fields(
    user={
        name: name for name in ("user_id", "gender", "age", "occupation", "zip")
    },
    behavior={name: name for name in ("movie_id", "genres", "genre", "rating")},
    candidate={name: name for name in ("movie_id", "genres", "genre")},
    min_count=dict.fromkeys(("user_id", "zip", "movie_id", "genres"), 2),
    sets={"genre": 6},
    numbers=("behavior_year", "candidate_year"),
)


def expected_store(raw_dir: Path) -> Expected:
    """Returns what a store of these files must hold."""
    movies: dict[int, Values] = {}
    for movie, title, genres in _rows(raw_dir, "movies.dat", "latin-1"):
        year = re.search(r"\(([0-9]{4})\)$", title)
        movies[int(movie)] = {
            "genres": genres,
            "genre": genres.split("|"),
            "year": int(year[1]) if year else None,
        }
    behaviors = []
    impressions = []
    num_unknown = 0
    for texts in _rows(raw_dir, "ratings.dat"):
        user_id, movie_id, rating, time = map(int, texts)
        num_unknown += movie_id not in movies
        nothing: Values = {"genres": None, "genre": [], "year": None}
        values = {"movie_id": movie_id, **movies.get(movie_id, nothing)}
        behaviors.append(
            Behavior(
                user_id=user_id, time=time, values={**values, "rating": rating}
            )
        )
        impressions.append(
            Impression(
                user_id=user_id,
                time=time,
                request=time,
                label=int(rating >= 4),
                values={**values},
            )
        )
    times = sorted(impression.time for impression in impressions)
    return build(
        Raw(
            fields=FIELDS,
            users={
                int(user): {
                    "gender": gender,
                    "age": int(age),
                    "occupation": int(occupation),
                    "zip": code[:3],
                }
                for user, gender, age, occupation, code in _rows(
                    raw_dir, "users.dat"
                )
            },
            behaviors=behaviors,
            impressions=impressions,
            test_time=times[len(times) * 9 // 10],
            dropped={},
            behaviors_are_impressions=True,
            incomplete={"ratings of a movie without features": num_unknown},
        )
    )


def _rows(raw_dir: Path, name: str, encoding: str = "utf-8") -> list[list[str]]:
    text = read_text(raw_dir, name, encoding).replace("\r\n", "\n")
    return [line.split("::") for line in text.split("\n")[:-1]]
