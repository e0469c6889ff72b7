"""Own tables to a store: shapes, types, times, splits."""

import dataclasses
import datetime
import decimal
import pathlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from data_pipelines.datasets.own_rows import Column, OwnRows, TimeColumn
from data_pipelines.prepare import Options, prepare
from data_pipelines.raw.raw_dataset import EXACT_TIME
from data_pipelines.raw.raw_rows import RawRows
from sparsectr.errors import InputError
from sparsectr.time_zone import TimeZone
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.own_shop import (
    DAY,
    FIRST,
    NOW,
    SCHEMA,
    SECOND,
    TABLES,
    TEST_TIME,
    THIRD,
    TRAINING,
    candidate,
    changed,
    make,
    refused,
    replaced,
    thing,
    training,
)


def test_every_row_has_its_place(tmp_path: pathlib.Path) -> None:
    store = make(tmp_path)
    assert training(store) == TRAINING
    test = [r for r in decode(store).requests if r.split == "test"]
    assert [(r.user_id, r.time) for r in test] == [
        (1, NOW + 3 * DAY),
        (2, NOW + 2 * DAY),
    ]
    assert test[1].profile == {"country": None, "device": None}
    assert store.manifest["rows"]["impressions"] == {"read": 8, "valid": 7}
    assert store.manifest["dropped"] == {
        "impressions without `who`": 1,
        "behaviors without `who`": 1,
        "users without `id`": 0,
        "items without `sku`": 0,
        "behaviors of users without a request": 1,
        "profiles of users without a request": 1,
    }
    assert store.manifest["incomplete"] == {
        "candidates of an item without features": 1,
        "behaviors of an item without features": 1,
        "users without a profile": 0,
        "users without a behavior": 0,
    }
    assert store.manifest["split"]["test_time"] == TEST_TIME
    assert store.manifest["schema_file"]["file"] == "shop.toml"
    assert store.schema.time_zone == TimeZone.fixed(60)


def test_shards_change_nothing(tmp_path: pathlib.Path) -> None:
    contents = {
        make(tmp_path, name=f"store-{n}", num_shards=n).manifest["content"]
        for n in (1, 2, 7)
    }
    assert len(contents) == 1


def test_requests_with_lists(tmp_path: pathlib.Path) -> None:
    tables = {
        **TABLES,
        "shown": {
            "who": [2, 1, 1, 1, None, 1, 1, 1],
            "at": [
                NOW + 2 * DAY,
                NOW + 90,
                NOW + 30,
                NOW + 60,
                NOW + 60,
                NOW + 60,
                NOW + 3 * DAY,
                NOW,
            ],
            "device": [None, "tv", "tv", "pc", "pc", "pc", "pc", "tv"],
            "sku": [[10], [10], [12, 10], [11, 13], [1], [11], [99], []],
            "clicked": [[1], [0], [0, 1], [1, 0], [0], [1], [0], []],
        },
    }
    schema = replaced(
        "[impressions]",
        "[requests]",
        'request = "view"\n',
        "",
        '"impressions.device"',
        '"requests.device"',
        '"impressions.sku"',
        '"requests.sku"',
    )
    store = make(tmp_path, schema, tables)
    found = training(store)
    # Two rows of one second are two requests, in the order of the rows.
    repeated = found.pop(2)
    assert found == TRAINING
    assert repeated.candidates == [(candidate(11), 1)]
    assert store.manifest["dropped"]["requests without a candidate"] == 1
    contents = make(tmp_path, schema, tables, name="many", num_shards=5)
    assert contents.manifest["content"] == store.manifest["content"]


def test_lists_of_null_type_and_of_other_lengths(
    tmp_path: pathlib.Path,
) -> None:
    schema = replaced(
        "[impressions]",
        "[requests]",
        'request = "view"\n',
        "",
        '"impressions.device"',
        '"requests.device"',
        '"impressions.sku"',
        '"requests.sku"',
    )
    shown = {"who": [1, 1], "at": [NOW, NOW + 9], "device": ["a", "b"]}
    lists = {"sku": [[10], [11, 12]], "clicked": [[1], [1]]}
    message = refused(tmp_path, schema, {**TABLES, "shown": shown | lists})
    assert "shown.parquet, row 2: the lists" in message
    assert "`sku`" in message
    assert "differ in length" in message
    lists = {"sku": [10, 11], "clicked": [1, 0]}
    message = refused(tmp_path, schema, {**TABLES, "shown": shown | lists})
    assert "requests.label: column 'clicked' is no list" in message


def test_earlier_impressions_are_the_history(tmp_path: pathlib.Path) -> None:
    begin, end = SCHEMA.index("[behaviors]"), SCHEMA.index("[users]")
    schema = 'behaviors = "impressions"\n' + SCHEMA[:begin] + SCHEMA[end:]
    schema = schema.replace(
        'thing = "behaviors.sku"',
        'thing = "impressions.sku"\nfeedback = "impressions.clicked"',
    )
    found = training(make(tmp_path, schema))
    shown = [
        (NOW + 30, {**thing(12), "feedback": 0}),
        (NOW + 30, {**thing(10), "feedback": 1}),
        (NOW + 60, {**thing(13), "feedback": 0}),
        (NOW + 61, {**thing(11), "feedback": 1}),
    ]
    # The two rows of view `b` are of different seconds, and neither is in
    # the history of their request.
    assert [r.history for r in found] == [[], shown[:2], shown]


def test_a_row_of_impressions_occurs_once(tmp_path: pathlib.Path) -> None:
    begin, end = SCHEMA.index("[behaviors]"), SCHEMA.index("[users]")
    schema = 'behaviors = "impressions"\n' + SCHEMA[:begin] + SCHEMA[end:]
    for old, new in (
        (
            'thing = "behaviors.sku"',
            'thing = "impressions.sku"\ndevice = "impressions.device"\n'
            'feedback = "impressions.clicked"',
        ),
        ("[dense", 'device = "impressions.device"\n[dense'),
    ):
        schema = schema.replace(old, new)
    for table in ("thing", "device", "feedback"):
        schema += f"[tables.{table}]\nmin_count = 2\n"
    shown = changed("shown", device=["tv", "pc", "a", "a", "pc"] + ["b"] * 3)
    store = make(tmp_path, schema, shown)
    values = {
        name: store.vocabulary(name).values.to_pylist()
        for name in ("thing", "device", "feedback")
    }
    # Of the five training rows, one has 11, 12, 13 or a `tv` each.
    assert values == {"thing": [10], "device": ["a", "pc"], "feedback": [0, 1]}


def test_without_request_ids(tmp_path: pathlib.Path) -> None:
    schema = replaced('request = "view"\n', "")
    found = training(make(tmp_path, schema))
    assert [(r.time - NOW, len(r.candidates)) for r in found] == [
        (30, 2),
        (60, 1),
        (61, 1),
        (90, 1),
    ]
    assert found[2].history == [FIRST, SECOND, THIRD]


def test_milliseconds_tell_requests_apart(tmp_path: pathlib.Path) -> None:
    schema = replaced(
        'request = "view"\n', "", 'time = "at"', 'time = "at"\ntime_unit = "ms"'
    )
    milliseconds = [at * 1000 for at in TABLES["shown"]["at"]]
    milliseconds[3] += 1
    store = make(tmp_path, schema, changed("shown", at=milliseconds))
    found = training(store)
    assert [(r.time - NOW, len(r.candidates)) for r in found[:2]] == [
        (30, 1),
        (30, 1),
    ]
    assert found[1].history == [FIRST]


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        ("ms", pa.int64()),
        ("ms", pa.float64()),
        ("s", pa.timestamp("ms")),
        ("s", pa.timestamp("ns", "UTC")),
    ],
    ids=str,
)
def test_rows_of_one_second_are_in_the_order_of_time(
    tmp_path: pathlib.Path, unit: str, kind: pa.DataType
) -> None:
    def times(*milliseconds: int) -> pa.Array:
        values = pa.array([NOW * 1000 + m for m in milliseconds], pa.int64())
        if pa.types.is_timestamp(kind):
            values = values.cast(pa.timestamp("ms"))
        return values.cast(kind)

    events = {
        "who": [1, 1, 1, 1, 1, 1],
        "at": times(901, 450, 449, 450, 450, -1),
        "sku": [1, 2, 3, 4, 2, 5],
    }
    schema = SCHEMA.replace('time = "at"', f'time = "at"\ntime_unit = "{unit}"')
    schema = schema.replace(
        '[behaviors]\nfiles = "events.parquet"',
        '[behaviors]\ndrop_duplicates = true\nfiles = "events.parquet"',
    )
    shown = [DAY * 1000 * n for n in range(7)] + [0]
    tables = {**changed("shown", at=times(*shown)), "events": events}
    found = training(make(tmp_path, schema, tables))[-1]
    assert [(time - NOW, v["thing"]) for time, v in found.history] == [
        *((-1, 5), (0, 3), (0, 2), (0, 4), (0, 1))
    ]
    # Where impressions are the history.
    begin, end = SCHEMA.index("[behaviors]"), SCHEMA.index("[users]")
    schema = SCHEMA[:begin] + SCHEMA[end:]
    schema = schema.replace('time = "at"', f'time = "at"\ntime_unit = "{unit}"')
    schema = 'behaviors = "impressions"\n' + schema.replace(
        "behaviors.sku", "impressions.sku"
    )
    shown = {
        **TABLES["shown"],
        "who": [1] * 8,
        "at": times(12, 3, 2, 8, 5, 5, 1000, 2 * DAY * 1000),
        "sku": [1, 2, 3, 4, 5, 6, 7, 8],
        "view": list("abcdefgh"),
    }
    store = make(tmp_path, schema, {**TABLES, "shown": shown}, name="shown")
    found = training(store)
    assert [v["thing"] for _, v in found[-1].history] == [3, 2, 5, 6, 4, 1]
    assert [r.candidates[0][0]["thing"] for r in found] == [
        *(3, 2, 5, 6, 4, 1, 7)
    ]


def test_without_users_and_items(tmp_path: pathlib.Path) -> None:
    schema = """
    [impressions]
    files = ["shown.parquet"]
    user = "who"
    time = "at"
    label = "clicked"
    request = "view"
    [behaviors]
    files = "events.parquet"
    user = "who"
    time = "at"
    [user_fields]
    device = "impressions.device"
    [behavior_fields]
    thing = "behaviors.sku"
    [candidate_fields]
    thing = "impressions.sku"
    [split]
    last_day = true
    """
    found = training(make(tmp_path, schema))
    assert len(found) == 4
    assert found[0].profile == {"device": "tv"}
    assert found[0].history == [(NOW + 29, {"thing": 10})]


def test_repeated_rows(tmp_path: pathlib.Path) -> None:
    tables = {
        **TABLES,
        "shown": {k: v[:1] + v for k, v in TABLES["shown"].items()},
        "events": {k: v[:1] + v for k, v in TABLES["events"].items()},
    }
    kept = make(tmp_path, tables=tables)
    assert len(training(kept)[2].candidates) == 2
    assert len(training(kept)[2].history) == 4
    schema = replaced(
        "[impressions]",
        "[impressions]\ndrop_duplicates = true",
        "[behaviors]",
        "[behaviors]\ndrop_duplicates = true",
    )
    dropped = make(tmp_path, schema, tables, name="dropped")
    assert training(dropped) == TRAINING
    assert dropped.manifest["dropped"]["repeated candidates"] == 1
    assert dropped.manifest["dropped"]["repeated behaviors"] == 1


def test_names_that_only_look_taken(tmp_path: pathlib.Path) -> None:
    schema = replaced(
        "[behaviors]",
        "[behaviors]\ndrop_duplicates = true",
        'brand = "items.brand"',
        'item_id = "behaviors.what"\nuser = "behaviors.sku"',
    )
    events = changed(
        "events",
        at=[NOW] * 6,
        what=["a", "a", "b", "b", "c", "d"],
        sku=[1, 1, 1, 2, 3, 4],
    )
    store = make(tmp_path, schema, events)
    assert training(store)[0].history == [
        (NOW, {"thing": 1, "item_id": "a", "user": 1}),
        (NOW, {"thing": 1, "item_id": "b", "user": 1}),
    ]


def column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """Returns the values as a column of a type."""
    if pa.types.is_dictionary(kind):
        encoded = column(kind.value_type, values).dictionary_encode()
        return encoded.cast(kind)
    if pa.types.is_decimal(kind):
        values = [None if v is None else decimal.Decimal(v) for v in values]
    elif not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
        values = [None if v is None else str(v).encode() for v in values]
    return pa.array(values, kind)


def with_ids(kind: pa.DataType) -> dict[str, Any]:
    """Returns the tables with all ids in columns of a type."""
    return {
        name: {
            key: column(kind, values)
            if key in ("sku", "who", "id")
            else pa.array(values)
            for key, values in columns.items()
        }
        for name, columns in TABLES.items()
    }


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint16(),
        pa.uint64(),
        pa.dictionary(pa.int8(), pa.int32()),
    ],
    ids=str,
)
def test_integer_ids(tmp_path: pathlib.Path, kind: pa.DataType) -> None:
    assert training(make(tmp_path, tables=with_ids(kind))) == TRAINING


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_text_ids(tmp_path: pathlib.Path, kind: pa.DataType) -> None:
    found = training(make(tmp_path, tables=with_ids(kind)))
    assert [r.user_id for r in found] == ["1"] * 3
    assert [r.time for r in found] == [r.time for r in TRAINING]
    assert found[1].history == [
        (NOW + 29, {"thing": "10", "brand": "x"}),
        (NOW + 30, {"thing": "98", "brand": None}),
    ]


def test_empty_texts_are_missing(tmp_path: pathlib.Path) -> None:
    tables = with_ids(pa.string())
    shown = tables["shown"]
    who = ["1"] * 5 + ["2", "", None]
    sku = ["10", "11", "12", "", "13", "10", "99", "10"]
    tables = {**tables, "shown": {**shown, "who": who, "sku": sku}}
    tables["things"] = {**tables["things"], "sku": ["10", "11", "12", ""]}
    store = make(tmp_path, tables=tables)
    assert store.manifest["dropped"]["impressions without `who`"] == 2
    assert store.manifest["dropped"]["items without `sku`"] == 1
    assert training(store)[0].candidates[1] == (
        {"thing": None, "brand": None, "price": None},
        1,
    )
    shown = {**shown, "who": who, "view": ["a", "", *"bcdefg"]}
    message = refused(tmp_path / "b", tables={**tables, "shown": shown})
    assert "shown.parquet, row 2: `view` is missing" in message


@pytest.mark.parametrize("kind", [pa.float64(), pa.decimal128(9, 2)], ids=str)
def test_whole_numbers_that_are_no_integers(
    tmp_path: pathlib.Path, kind: pa.DataType
) -> None:
    values = [12, None, 10, 10, 11, 99, 12, 10]
    tables = changed("shown", size=column(kind, values))
    schema = replaced(
        "[candidate_fields]", '[candidate_fields]\nsize = "impressions.size"'
    )
    message = refused(tmp_path, schema, tables)
    assert "candidate_fields.size: the column holds numbers" in message
    assert '[tables.size] type = "int"' in message
    schema += '[tables.size]\ntype = "int"\n'
    store = make(tmp_path, schema, tables)
    assert [r.candidates[0][0]["size"] for r in training(store)] == [
        10,
        None,
        12,
    ]
    tables = changed("shown", size=column(kind, [0.5] * 8))
    with pytest.raises(InputError, match=r"shown.parquet, row 1: `size` of"):
        make(tmp_path, schema, tables, name="other")


@pytest.mark.parametrize(
    ("kind", "bits"), [(pa.float64(), 53), (pa.float32(), 24)], ids=str
)
def test_floats_that_may_stand_for_several_ids(
    tmp_path: pathlib.Path, kind: pa.DataType, bits: int
) -> None:
    schema = replaced(
        "[candidate_fields]", '[candidate_fields]\nad = "impressions.ad"'
    )
    schema += '[tables.ad]\ntype = "int"\n'
    ads = [2**bits - 1, 1 - 2**bits, *range(5), None]
    store = make(tmp_path, schema, changed("shown", ad=pa.array(ads, kind)))
    # The last three are of the test, or of nobody.
    assert set(ads[:5]) == set(store.vocabulary("ad").values.to_pylist())
    for far in (2**bits, -(2**bits), 1_700_000_000_000_000_123):
        ads[2] = far
        shown = changed("shown", ad=pa.array(map(float, [*ads[:-1], 0]), kind))
        with pytest.raises(InputError) as caught:
            make(tmp_path, schema, shown, name="other")
        assert (
            f"shown.parquet, row 3: `ad` of type {kind} holds whole numbers "
            f"exactly only below 2^{bits}; write the column as integers or as "
            "text. Received: ad="
        ) in str(caught.value)


def split_in_two(
    tables: dict[str, Any], casts: dict[str, dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Returns schema and tables with the later half in a file of its own.

    Args:
        tables: The tables.
        casts: By table and column, the types in the two files.
    """
    schema, found = SCHEMA, dict(tables)
    for name, types in casts.items():
        halves: list[dict[str, Any]] = [{}, {}]
        for key, values in tables[name].items():
            middle = len(values) // 2
            parts = values[:middle], values[middle:]
            for half, part, kind in zip(
                halves, parts, types.get(key, (None, None)), strict=True
            ):
                half[key] = pa.array(part, kind)
        found[name], found[f"{name}-2"] = halves
        file = f'"{name}.parquet"'
        assert file in schema
        schema = schema.replace(file, f'[{file}, "{name}-2.parquet"]')
    return schema, found


@pytest.mark.parametrize("turn", [1, -1])
def test_numbers_of_other_types_in_other_files(
    tmp_path: pathlib.Path, turn: int
) -> None:
    kinds = [pa.int64(), pa.float64()][::turn]
    sizes = column(pa.float64(), [12, None, 10, 10, 11, 99, 12, 10])
    tables = changed("shown", size=sizes.to_pylist())
    tables["things"] = {**tables["things"], "price": [2, 0, None, 3]}
    schema, tables = split_in_two(
        tables,
        {
            "shown": {"at": kinds, "clicked": kinds, "size": kinds},
            "events": {"at": kinds},
            "things": {"price": kinds},
        },
    )
    schema = schema.replace(
        "[candidate_fields]", '[candidate_fields]\nsize = "impressions.size"'
    )
    schema += '[tables.size]\ntype = "int"\n'
    store = make(tmp_path, schema, tables)
    found = training(store)
    assert [r.history for r in found] == [r.history for r in TRAINING]
    assert [r.candidates[0][0]["price"] for r in found] == [None, 0.0, 2.0]
    assert [r.candidates[0][0]["size"] for r in found] == [10, None, 12]
    labels = [[label for _, label in r.candidates] for r in found]
    assert labels == [[0, 1], [1, 0], [0]]
    for name, key, value, message in (
        ("shown", "clicked", 0.5, "row 1: the label `clicked` is 0 or 1"),
        ("shown", "size", 0.5, "row 1: `size` of type double cannot be"),
        ("things", "price", "a", "column 'price' of"),
    ):
        file = name if turn == -1 else f"{name}-2"
        bad = [value, *tables[file][key].to_pylist()[1:]]
        if isinstance(value, str):
            bad = [str(v) for v in bad]
        wrong = {**tables, file: {**tables[file], key: pa.array(bad)}}
        received = refused(tmp_path / key, schema, wrong)
        assert f"{file}.parquet" in received
        assert message in received


@pytest.mark.parametrize(
    "kinds",
    [
        (pa.int64(), pa.float64()),
        (pa.timestamp("s"), pa.timestamp("ns")),
        (pa.timestamp("us"), pa.timestamp("ms", "UTC")),
    ],
    ids=str,
)
def test_one_moment_in_units_of_two_files(
    tmp_path: pathlib.Path, kinds: tuple[pa.DataType, pa.DataType]
) -> None:
    shown = {
        "who": [1] * 4,
        "at": [NOW, NOW + 2 * DAY] * 2,
        "device": ["tv"] * 4,
        "sku": [10, 11, 12, 13],
        "clicked": [0, 1, 1, 0],
    }
    schema, tables = split_in_two({**TABLES, "shown": shown}, {"shown": {}})
    for name, kind in zip(("shown", "shown-2"), kinds, strict=True):
        seconds = tables[name]["at"]
        if pa.types.is_timestamp(kind):
            seconds = seconds.cast(pa.timestamp("s"))
        tables[name]["at"] = seconds.cast(kind)
    schema = schema.replace('request = "view"\n', "")
    (request,) = training(make(tmp_path, schema, tables))
    assert [label for _, label in request.candidates] == [0, 1]


def timestamps(unit: str, zone: str | None, shift: int) -> Any:
    def cast(values: list[int]) -> pa.Array:
        shifted = pa.array([v + shift for v in values], pa.int64())
        scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        exact = pa.array([v.as_py() * scale for v in shifted], pa.int64())
        return exact.cast(pa.timestamp(unit, zone))

    return cast


@pytest.mark.parametrize(
    ("cast", "said"),
    [
        (lambda v: pa.array(v, pa.int64()), ""),
        (lambda v: pa.array(v, pa.uint32()), ""),
        (lambda v: pa.array([x + 0.75 for x in v]), ""),
        (
            lambda v: pa.array([decimal.Decimal(x) for x in v]),
            'time_unit = "s"',
        ),
        (
            lambda v: pa.array([x * 10**3 + 999 for x in v]),
            'time_unit = "ms"',
        ),
        (lambda v: pa.array([x * 10**6 for x in v]), 'time_unit = "us"'),
        (lambda v: pa.array([x * 10**9 for x in v]), 'time_unit = "ns"'),
        (timestamps("s", "UTC", 0), ""),
        (timestamps("ns", "Europe/Vienna", 0), 'time_zone = "local"'),
        (timestamps("ms", None, 0), ""),
        (timestamps("us", None, 3600), 'time_zone = "local"'),
    ],
)
def test_times(
    tmp_path: pathlib.Path, cast: Callable[[Any], pa.Array], said: str
) -> None:
    tables = {
        **TABLES,
        **{
            name: {**TABLES[name], "at": cast(TABLES[name]["at"])}
            for name in ("shown", "events")
        },
    }
    line = 'time = "at"\n'
    schema = SCHEMA.replace(line, f"{line}{said}\n")
    store = make(tmp_path, schema, tables)
    assert training(store) == TRAINING


@pytest.mark.parametrize(
    ("said", "test_time"),
    [
        ("test_start = 2020-09-14", 1_600_038_000),  # midnight at UTC+1
        ("test_start = 2020-09-14T00:00:00", 1_600_038_000),
        ("test_start = 2020-09-14T00:00:00Z", 1_600_041_600),
        ("last_day = true", 1_600_210_800),
        ("last_fraction = 0.5", NOW + 61),
        ("last_fraction = 0.1", NOW + 3 * DAY),
    ],
)
def test_splits(tmp_path: pathlib.Path, said: str, test_time: int) -> None:
    store = make(
        tmp_path, replaced("test_start = 2020-09-14T12:26:50Z", f"{said}")
    )
    assert store.manifest["split"]["test_time"] == test_time


@pytest.mark.parametrize(
    ("said", "minutes"),
    [
        ("utc_offset_minutes = 345", 345),
        ("utc_offset_hours = -3", -180),
        ('time_zone = "Asia/Kolkata"', 330),
        ("", 0),
    ],
)
def test_time_zone(tmp_path: pathlib.Path, said: str, minutes: int) -> None:
    schema = replaced("utc_offset_hours = 1", said)
    split = "test_start = 2020-09-14T12:26:50Z"
    schema = schema.replace(split, "test_start = 2020-09-14")
    store = make(tmp_path, schema)
    midnight = 1_600_041_600 - 60 * minutes
    assert store.manifest["split"]["test_time"] == midnight
    zone = TimeZone.from_dict(store.manifest["schema"]["time_zone"])
    assert zone.local(midnight) == 1_600_041_600
    assert store.schema.time_zone == zone


def test_time_fields_change_the_schema_alone(tmp_path: pathlib.Path) -> None:
    plain = make(tmp_path)
    line = 'time_fields = ["behavior_gap", "request_hour"]\n'
    named = make(tmp_path, line + SCHEMA, name="named")
    assert named.schema.time_fields == ("behavior_gap", "request_hour")
    # A flag says what the file does not.
    options = Options(
        schema_file=tmp_path / "shop.toml", time_fields=("gap_to_request",)
    )
    other = prepare(
        "parquet", tmp_path / "raw-named", tmp_path / "other", options=options
    )
    assert other.schema.time_fields == ("gap_to_request",)
    for store in (named, other):
        assert store.manifest["content"] == plain.manifest["content"]
        without = dataclasses.replace(store.schema, time_fields=())
        assert without == plain.schema


def test_clock_times_of_a_day_on_which_clocks_change() -> None:
    """02:30 is the first of two in October, and none in March."""
    clock = ["2023-10-29 01:59:59.5", "2023-10-29 02:30", "2023-10-29 03:00"]
    clock += ["2023-03-26 01:59", "2023-03-26 02:30", "2023-03-26 03:00"]
    utc = ["2023-10-28 23:59:59", "2023-10-29 00:30", "2023-10-29 02:00"]
    utc += ["2023-03-26 00:59", "2023-03-26 01:30", "2023-03-26 01:00"]
    seconds = [
        int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp())
        for text in utc
    ]
    at = [datetime.datetime.fromisoformat(text) for text in clock]
    columns = {"who": range(6), "at": pa.array(at, pa.timestamp("us"))}
    rows = RawRows(pa.table(columns), 0, str)
    zone = TimeZone.named("Europe/Copenhagen")
    OwnRows(
        noun="rows",
        columns=(Column(name="user", source="who", kind=pa.int64()),),
        time=TimeColumn(source="at", unit="s", time_zone=zone, is_exact=True),
    )(rows)
    assert rows.table["time"].to_pylist() == seconds
    nanoseconds = [10**9 * time for time in seconds]
    nanoseconds[0] += 500_000_000
    assert rows.table[EXACT_TIME].to_pylist() == nanoseconds


def test_embedding_tables(tmp_path: pathlib.Path) -> None:
    schema = SCHEMA + (
        '[tables.thing]\nkind = "hashed"\nsize = 7\n'
        "[tables.brand]\nmin_count = 3\n"
        '[tables.country]\ntype = "string"\n'
    )
    tables = changed("people", country=[43, None, 49])
    store = make(tmp_path, schema, tables)
    tables_of = {table.name: table for table in store.schema.tables}
    assert tables_of["thing"].kind == "hashed"
    assert tables_of["thing"].size == 7
    assert store.vocabulary("country").values.to_pylist() == ["43"]
    # `x` is seen four times in training, `y` once.
    assert store.vocabulary("brand").values.to_pylist() == ["x"]


def test_a_table_of_integers_and_texts(tmp_path: pathlib.Path) -> None:
    schema = replaced(
        'device = "impressions.device"',
        'device = { column = "impressions.device", table = "thing" }',
    )
    message = refused(tmp_path, schema)
    assert "tables.thing: behavior_fields.thing holds whole numbers and" in (
        message
    )
    store = make(tmp_path, schema + '[tables.thing]\ntype = "string"\n')
    values = store.vocabulary("thing").values.to_pylist()
    assert {"10", "98", "tv", "pc"} <= set(values)


def test_numbers_of_all_kinds_are_dense(tmp_path: pathlib.Path) -> None:
    kinds = [pa.int64(), pa.uint8(), pa.float64(), pa.decimal128(22, 1)]
    for index, kind in enumerate(kinds):
        prices = column(kind, [7, 9, None, 0])
        if kind == pa.int64():
            prices = pa.array([16_777_217, 9, None, 0])
        store = make(
            tmp_path, tables=changed("things", price=prices), name=f"s{index}"
        )
        first = training(store)[0].candidates
        expected = 16_777_216.0 if kind == pa.int64() else 7.0
        assert [c["price"] for c, _ in first] == [None, expected]
    message = refused(
        tmp_path / "infinite",
        tables=changed("things", price=[float("inf"), 1.0, None, 1.0]),
    )
    assert (
        "things.parquet, row 1: `price` is not a finite number of 32" in message
    )
