"""Raw MovieLens files as published, and worse."""

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.data_pipelines.generated_files import PACKINGS, RawFile

_LARGEST = 2**63 - 1
_USERS = (1, 2, 3, 0, -1, _LARGEST, _LARGEST - 1)
_MOVIES = (1, 2, 3, 0, 3952, _LARGEST)
_TIMES = (1, 956_703_932, 956_703_933, 956_703_934, 4_102_444_799)
_TITLES = (
    "Toy Story (1995)",
    "Mis\xe9rables, Les (1995)",
    'Seven "7" (a.k.a. Se7en) (1996)',
    "1984",
    "(1984) again",
    "x",
)

_GENRES = ("Drama", "Crime|Drama", "Drama|Crime", "War", "a|b|c|d|e|f|War")

_pick = st.sampled_from


@st.composite
def raw_files(draw: st.DrawFn) -> list[RawFile]:
    """Draws ratings, users and movies."""
    rating = st.tuples(
        _pick(_USERS), _pick(_MOVIES), st.integers(1, 5), _pick(_TIMES)
    )
    profile = st.tuples(
        _pick("FM"),
        _pick((1, 18, 56)),
        st.integers(0, 20),
        _pick(("48067", "70072-1234", "480", "1", "\u00e9t\u00e9s")),
    )
    features = st.tuples(_pick(_TITLES), _pick(_GENRES))
    users = draw(st.lists(_pick((*_USERS, 77)), max_size=5, unique=True))
    movies = draw(st.lists(_pick(_MOVIES), max_size=5, unique=True))
    return [
        _file(
            draw,
            "ratings.dat",
            draw(st.lists(rating, min_size=1, max_size=20)),
        ),
        _file(draw, "users.dat", [(user, *draw(profile)) for user in users]),
        _file(
            draw,
            "movies.dat",
            [(movie, *draw(features)) for movie in movies],
            "latin-1",
        ),
    ]


def _file(
    draw: st.DrawFn,
    name: str,
    rows: Sequence[Sequence[object]],
    encoding: str = "utf-8",
) -> RawFile:
    end = draw(_pick([b"\n", b"\r\n"]))
    return RawFile(
        name=name,
        columns=[],
        rows=[[str(value).encode(encoding) for value in row] for row in rows],
        line_ends=[b"", *[end] * len(rows)],
        header=b"",
        packing=draw(_pick(PACKINGS)),
        delimiter=b"::",
    )
