"""Raw Alibaba files as published, and worse, and spoilt ones."""

import dataclasses
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.data_pipelines.generated_files import RawFile, laid_out
from tests.data_pipelines.reference_alibaba import (
    END_TIME,
    FIRST_BEHAVIOR_TIME,
    PROFILE,
    TEST_TIME,
)

FIRST_SAMPLE_TIME = 1_494_000_000
"""Midnight of 2017-05-06 in China (UTC+8)."""

COLUMNS = {
    "raw_sample.csv": (
        "user",
        "time_stamp",
        "adgroup_id",
        "pid",
        "nonclk",
        "clk",
    ),
    "ad_feature.csv": (
        "adgroup_id",
        "cate_id",
        "campaign_id",
        "customer",
        "brand",
        "price",
    ),
    "user_profile.csv": ("userid", *PROFILE),
    "behavior_log.csv": ("user", "time_stamp", "btag", "cate", "brand"),
}
KEYS = {"ad_feature.csv": "adgroup_id", "user_profile.csv": "userid"}

_LARGEST = 2**63 - 1
# Neighbours at the end of int64: a detour through a double makes them one.
_USERS = (1, 2, 3, 0, 1_141_729, -1, _LARGEST, _LARGEST - 1, -(2**63))
_ADS = (10, 11, 12, 0, 846_811, _LARGEST, _LARGEST - 1)
_CATEGORIES = (5, 6, 0, _LARGEST, _LARGEST - 1)
# Of few brands, so that rows are often equal but for one, or in all.
_BRAND_POOLS = (
    (7, 8, "NULL"),
    (0, 7, ""),
    (_LARGEST, _LARGEST - 1, "NULL"),
    (2**53 + 1, 2**53, "", "NULL"),
    (7, 8, 0, "", "NULL", _LARGEST, _LARGEST - 1),
)
_PRICES = (
    "170.0",
    "0.01",
    "0.1",
    "0.2",
    "99999999.0",
    "100000008",  # the next float32 after the one above
    "16777217",
    "1e-30",
    "0",
    "-1.5",
    "",
    "NULL",
)
_PIDS = ("430548_1007", "430539_1007", "ä", '"', "NULL")
_LEVELS = ("", 0, 1, 2, 96, -1)
_KINDS = ("pv", "cart", "fav", "buy")
_DAY = 86_400
TRAINING_TIMES = (
    FIRST_SAMPLE_TIME,
    FIRST_SAMPLE_TIME + 1,
    TEST_TIME - 3 * _DAY,
    TEST_TIME - 2,
    TEST_TIME - 1,
)
TEST_TIMES = (TEST_TIME, TEST_TIME + 1, TEST_TIME + 2, END_TIME - 1)
_OTHER_TIMES = (
    FIRST_BEHAVIOR_TIME,
    FIRST_BEHAVIOR_TIME - 1,
    END_TIME,
    END_TIME - 1,
    0,
    -5,
    2**31,
    2**32 + TEST_TIME - 1,
    1000 * TEST_TIME,
    _LARGEST,
    -(2**63),
)

_pick = st.sampled_from
_Rows = list[tuple[object, ...]]


@st.composite
def raw_files(
    draw: st.DrawFn,
    splits: Sequence[Sequence[int]] = (TRAINING_TIMES, TEST_TIMES),
) -> list[RawFile]:
    """Draws the four files, with a request at least in each of `splits`."""
    users = draw(st.lists(_pick(_USERS), min_size=1, max_size=4, unique=True))
    times = [time for split in splits for time in split]
    sample = st.tuples(_pick(users), _pick(times), _pick(_ADS), _pick(_PIDS))
    samples = draw(_rows(sample, 8))
    for split in splits:
        place = draw(st.integers(0, len(samples)))
        ad, pid = draw(_pick(_ADS)), draw(_pick(_PIDS))
        time = draw(_pick(split))
        samples.insert(place, (draw(_pick(users)), time, ad, pid))
    if samples and draw(st.booleans()):
        # The same advertisement twice in one request: both were shown.
        samples.append(draw(_pick(samples)))
    brands = draw(_pick(_BRAND_POOLS))
    click = [draw(st.integers(0, 1)) for _ in samples]
    rows: dict[str, _Rows] = {
        "raw_sample.csv": [
            (*sample, 1 - clk, clk)
            for sample, clk in zip(samples, click, strict=True)
        ],
        "ad_feature.csv": draw(_ads(brands)),
        "user_profile.csv": draw(_profiles()),
        "behavior_log.csv": draw(_behaviors([s[:2] for s in samples], brands)),
    }
    return [draw(laid_out(name, COLUMNS[name], rows[name])) for name in COLUMNS]


@st.composite
def _rows(
    draw: st.DrawFn, row: st.SearchStrategy[tuple[object, ...]], most: int
) -> _Rows:
    """Draws rows, many as often as few."""
    size = draw(st.integers(0, most))
    return draw(st.lists(row, min_size=size, max_size=size))


@st.composite
def _ads(draw: st.DrawFn, brands: Sequence[object]) -> _Rows:
    ids = draw(st.lists(_pick(_ADS), max_size=6, unique=True))
    prices = draw(st.lists(_pick(_PRICES), min_size=1, max_size=4))
    features = st.tuples(
        _pick((*_CATEGORIES, "", "NULL")),
        _pick((100, 101, _LARGEST, "")),
        _pick((1000, 0, "NULL")),
        _pick(brands),
        _pick(prices),
    )
    return [(ad, *draw(features)) for ad in ids]


@st.composite
def _profiles(draw: st.DrawFn) -> _Rows:
    ids = draw(st.lists(_pick((*_USERS, 77)), max_size=4, unique=True))
    levels = st.tuples(*[_pick(_LEVELS) for _ in PROFILE])
    return [(user, *draw(levels)) for user in ids]


@st.composite
def _behaviors(
    draw: st.DrawFn,
    requests: Sequence[tuple[object, ...]],
    brands: Sequence[object],
) -> _Rows:
    """Draws behaviors around the requests, some of them repeated."""
    near = st.builds(
        lambda request, shift: (request[0], int(str(request[1])) + shift),
        _pick(requests or [(1, TEST_TIME)]),
        st.integers(-2, 1),
    )
    any_time = st.tuples(_pick((*_USERS, 78)), _pick(_OTHER_TIMES))
    what = st.tuples(_pick(_KINDS), _pick(_CATEGORIES), _pick(brands))
    when = st.one_of(near, near, near, any_time)
    rows = [
        (*time, *values)
        for time, values in draw(_rows(st.tuples(when, what), 14))
    ]
    for _ in range(draw(st.integers(0, 4)) if rows else 0):
        row = list(draw(_pick(rows)))
        if draw(st.booleans()):
            # Equal but for one column: no repetition.
            row[4] = draw(_pick(brands))
        rows.insert(draw(st.integers(0, len(rows))), tuple(row))
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spoilt:
    """Files of which one has one fault.

    Args:
        files: The files, the spoilt one among them.
        name: Name of the spoilt file on disk.
        line: Line of the fault, from 1.
    """

    files: list[RawFile]
    name: str
    line: int


NOT_WHOLE = (
    b"x",
    b"1.5",
    b"1e3",
    b"--1",
    b"1 2",
    b"+-1",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1\x00",
    b"\x00",
    b"1_0",
    b"\xff",
    b"1\xff",
    "\u0663".encode(),
    b"0x1f",
    b"+1",
    b"\x0b1",
    "\u00a01".encode(),
)
_NOT_PRICE = (
    b"cheap",
    b"1.2.3",
    b"nan",
    b"-inf",
    b"Infinity",
    b"1e39",
    b"1\x00",
    b"\xff",
    b"0x10",
    b"1_0",
    "\u0663".encode(),
)
# Arrow reads hexadecimal and Python reads underscores, a plus, blanks of all
# kinds and the digits of every script: none of them is as published.
BAD_VALUES: dict[tuple[str, str], tuple[bytes, ...]] = {
    ("raw_sample.csv", "pid"): (b"", b"430548\xff", b"4305\x0048"),
    ("ad_feature.csv", "price"): _NOT_PRICE,
    ("behavior_log.csv", "btag"): (b"ipv", b"PV", b"", b"NULL", b"pv\x00"),
    **{
        (name, column): NOT_WHOLE
        for name, columns in COLUMNS.items()
        for column in columns
        if column not in ("pid", "price", "btag")
    },
}
# A key, and whatever the log and the sample cannot do without.
for _name, _columns in {
    "raw_sample.csv": ("user", "adgroup_id", "nonclk", "clk"),
    "ad_feature.csv": ("adgroup_id",),
    "user_profile.csv": ("userid",),
    "behavior_log.csv": ("user", "time_stamp", "cate"),
}.items():
    for _column in _columns:
        BAD_VALUES[_name, _column] += (b"",)
BAD_VALUES["raw_sample.csv", "time_stamp"] += (
    b"",
    b"0",
    b"%d" % (FIRST_SAMPLE_TIME - 1),
    b"%d" % END_TIME,
    b"%d" % (1000 * TEST_TIME),
)
BAD_VALUES["raw_sample.csv", "clk"] += (b"2", b"-1")


@st.composite
def spoilt_files(draw: st.DrawFn) -> Spoilt:
    """Draws files and spoils one row, or the header, of one of them."""
    files = draw(raw_files())
    places = [n for n, file in enumerate(files) if file.rows]
    place = draw(_pick(places))
    file = files[place]
    row = draw(st.integers(0, len(file.rows) - 1))
    faults = [_bad_value, _bad_value, _bad_count, _bad_line, _bad_header]
    if file.name == "raw_sample.csv":
        faults.append(_bad_click)
    elif file.name in KEYS:
        faults.append(_repeated_id)
    spoilt, line = draw(_pick(faults))(draw, file, row)
    return Spoilt(
        files=[*files[:place], spoilt, *files[place + 1 :]],
        name=spoilt.disk_name,
        line=line,
    )


def _bad_value(draw: st.DrawFn, file: RawFile, row: int) -> tuple[RawFile, int]:
    column = draw(_pick(COLUMNS[file.name]))
    value = draw(_pick(BAD_VALUES[file.name, column]))
    return file.with_value(row, column, value), row + 2


def _bad_count(draw: st.DrawFn, file: RawFile, row: int) -> tuple[RawFile, int]:
    values = list(file.rows[row])
    change = draw(_pick(["one too many", "one too few", "cut off", "blank"]))
    if change == "one too many":
        values.append(draw(_pick([b"", b"1"])))
    elif change == "one too few":
        del values[draw(st.integers(0, len(values) - 1))]
    elif change == "cut off":
        row = len(file.rows) - 1
        values = list(file.rows[row][: draw(st.integers(1, len(values) - 1))])
        file = file.with_line_end(row + 2, b"")
        if values == [b""]:
            values.append(b"")  # else there is no cut to be seen
    else:
        values = []
    return file.with_row(row, values), row + 2


def _bad_line(draw: st.DrawFn, file: RawFile, row: int) -> tuple[RawFile, int]:
    change = draw(_pick(["no line end", "carriage return", "two of them"]))
    if change == "no line end":
        last = len(file.rows) + 1
        return file.with_line_end(last, b""), last
    if change == "two of them":
        return file.with_line_end(row + 2, b"\r\r\n"), row + 2
    line = b",".join(file.rows[row])
    place = draw(st.integers(0, len(line) - 1))
    values = (line[:place] + b"\r" + line[place:]).split(b",")
    return file.with_row(row, values), row + 2


def _bad_header(
    draw: st.DrawFn, file: RawFile, row: int
) -> tuple[RawFile, int]:
    del row
    column = draw(_pick(COLUMNS[file.name])).encode()
    header = draw(
        _pick(
            [
                file.header.replace(column, b"other", 1),
                file.header.replace(column, column + b"\xff", 1),
                file.header + b"," + column,
                b"",
            ]
        )
    )
    return dataclasses.replace(file, header=header), 1


def _bad_click(draw: st.DrawFn, file: RawFile, row: int) -> tuple[RawFile, int]:
    both = draw(_pick([b"0", b"1"]))
    file = file.with_value(row, "clk", both)
    return file.with_value(row, "nonclk", both), row + 2


def _repeated_id(
    draw: st.DrawFn, file: RawFile, row: int
) -> tuple[RawFile, int]:
    place = draw(st.integers(row + 1, len(file.rows)))
    rows = [*file.rows[:place], file.rows[row], *file.rows[place:]]
    ends = [*file.line_ends, file.line_ends[-1]]
    return dataclasses.replace(file, rows=rows, line_ends=ends), place + 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damaged:
    """Files of which a packed one is damaged.

    Args:
        files: The files, sound.
        name: Name of the damaged file.
        data: Its bytes on disk.
        must_fail: Whether no reader can take it for sound.
    """

    files: list[RawFile]
    name: str
    data: bytes
    must_fail: bool


@st.composite
def damaged_files(draw: st.DrawFn) -> Damaged:
    """Draws files, and cuts a packed one off or flips one of its bits."""
    files = draw(raw_files())
    place = draw(st.integers(0, len(files) - 1))
    packing = draw(_pick([".gz", ".tar.gz"]))
    files[place] = dataclasses.replace(files[place], packing=packing)
    data = files[place].packed()
    at = draw(st.integers(0, len(data) - 1))
    is_cut = draw(st.booleans())
    if is_cut:
        damaged = data[:at]
    else:
        flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
        damaged = data[:at] + bytes([flipped]) + data[at + 1 :]
    return Damaged(
        files=files,
        name=files[place].name,
        data=damaged,
        must_fail=is_cut and packing == ".gz",
    )
