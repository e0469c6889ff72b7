"""Raw KuaiRand files as published, and worse."""

from hypothesis import strategies as st

from tests.data_pipelines.generated_files import RawFile, laid_out
from tests.data_pipelines.reference_kuairand import PROFILE, VIDEO

_LARGEST = 2**63 - 1
_USERS = (1, 2, 0, -1, _LARGEST, _LARGEST - 1)
_VIDEOS = (10, 11, 0, _LARGEST, _LARGEST - 1)
_MIDNIGHT = 1_651_248_000_000
"""2022-04-30 in China (UTC+8), in milliseconds."""

_TIMES = tuple(
    day + shift
    for day in (_MIDNIGHT, _MIDNIGHT - 86_400_000)
    for shift in (-1001, -1000, -999, -1, 0, 1, 999, 1000)
)
_JUNK = ("", "0", "x y", '"a, ""b"" c"', "NULL", "ä;€")
_LOG = (
    "user_id",
    "video_id",
    "time_ms",
    "is_click",
    "is_like",
    "long_view",
    "tab",
    "play_time_ms",
)
_RANGES = ("", "full", '"[100,1k)"', '"a ""b"""', "NULL", "0", "ä")

_pick = st.sampled_from


@st.composite
def raw_files(draw: st.DrawFn) -> list[RawFile]:
    """Draws exposures in one file or two, users and videos."""
    flag = st.integers(0, 1)
    exposure = st.tuples(
        _pick(_USERS[: draw(st.integers(1, len(_USERS)))]),
        _pick(_VIDEOS),
        _pick(_TIMES),
        flag,
        flag,
        flag,
        _pick((0, 1, 14)),
        _pick(("", 0, 1, 1033, 778_707)),
    )
    rows = draw(st.lists(exposure, min_size=1, max_size=14))
    for _ in range(draw(st.integers(0, 3))):
        # Equal in user, video and time, whatever came of it: the first stays.
        user, video, time = draw(_pick(rows))[:3]
        rows.insert(
            draw(st.integers(0, len(rows))),
            (user, video, time, *draw(exposure)[3:]),
        )
    cut = draw(st.integers(0, len(rows)))
    users = draw(st.lists(_pick((*_USERS, 77)), max_size=4, unique=True))
    ranges = st.tuples(*[_pick(_RANGES) for _ in PROFILE])
    videos = draw(st.lists(_pick(_VIDEOS), max_size=4, unique=True))
    features = st.tuples(
        _pick((100, "", _LARGEST)),
        _pick((1000, "", 0)),
        _pick(("", "39", '"39,68"', '"68,39"', '"5,4,39,2,1"')),
        _pick(("", "NORMAL", "AD")),
        _pick(("", "Kmovie")),
        _pick(("", "5000.0", "0.1", "100000000", "100000008")),
    )
    tables = [
        ("log_standard_4_08_to_4_21_pure.csv", _LOG, rows[:cut]),
        ("log_standard_4_22_to_5_08_pure.csv", _LOG, rows[cut:]),
        (
            "user_features_pure.csv",
            ("user_id", *PROFILE),
            [(user, *draw(ranges)) for user in users],
        ),
        (
            "video_features_basic_pure.csv",
            ("video_id", *VIDEO),
            [(video, *draw(features)) for video in videos],
        ),
    ]
    return [
        draw(laid_out(name, columns, table_rows, _JUNK))
        for name, columns, table_rows in tables
    ]
