"""What does not fit is refused in one line that says where."""

import datetime
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare import Options, prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.data_pipelines.own_shop import (
    NOW,
    SCHEMA,
    TABLES,
    changed,
    make,
    refused,
    replaced,
    write,
)


@pytest.mark.parametrize(
    ("values", "said", "parts"),
    [
        (
            [1_600_000_000_000] * 8,
            "",
            [
                "shown.parquet, row 1: `at` is not a time from 1970 to 2100 in "
                "seconds; in milliseconds it would be 2020-09-13 "
                '(time_unit = "ms"). Received: at=1600000000000'
            ],
        ),
        (
            [NOW * 1000] * 2 + [NOW] * 6,
            'time_unit = "ms"',
            ["row 3", "in milliseconds; in seconds it would be 2020-09-13"],
        ),
        ([NOW * 10**9] * 8, "", ['(time_unit = "ns")']),
        ([NOW * 1e6] * 8, "", ['(time_unit = "us")']),
        ([NOW] * 3 + [0] * 5, "", ["row 4", "Received: at=0"]),
        ([NOW] * 3 + [-5] * 5, "", ["row 4", "Received: at=-5"]),
        ([NOW, None] + [NOW] * 6, "", ["row 2: `at` is missing"]),
        ([float(NOW), float("nan")] * 4, "", ["row 2", "at=nan"]),
        ([4_102_444_800] * 8, "", ["2100 in seconds. Received"]),
        (
            [datetime.datetime(2101, 1, 1)] * 8,
            "",
            ["row 1: `at` is not a time from 1970 to 2100. Received"],
        ),
        (["2020-09-13"] * 8, "", ["impressions.time", "of type string"]),
        (
            pa.array([1.0] * 8, pa.float32()),
            "",
            [
                "impressions.time",
                "of type float, which holds Unix seconds to 128",
            ],
        ),
        (
            [datetime.date(2020, 9, 13)] * 8,
            "",
            ["of type date32[day], where numbers or timestamps belong"],
        ),
    ],
)
def test_bad_times(
    tmp_path: pathlib.Path, values: Any, said: str, parts: list[str]
) -> None:
    schema = replaced('time = "at"\n', f'time = "at"\n{said}\n')
    message = refused(tmp_path, schema, changed("shown", at=values))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"clicked": [0, 2] * 4}, "row 2: the label `clicked` is 0 or 1"),
        ({"clicked": [0, None] * 4}, "row 2: the label `clicked` is 0 or 1"),
        ({"clicked": ["a"] * 8}, "impressions.label: column 'clicked' of"),
        ({"view": ["a", None] * 4}, "row 2: `view` is missing"),
        ({"view": [0.5] * 8}, "impressions.request: column 'view' of"),
        ({"who": [0.5] * 8}, "impressions.user: column 'who' of"),
        ({"device": [0.5] * 8}, "user_fields.device: the column holds"),
        ({"device": [[1]] * 8}, "where whole numbers or text belong."),
        ({"sku": [[1]] * 8}, "with lists of candidates, the section is [re"),
        (
            {"who": ["a"] * 8},
            "ids are whole numbers in behaviors.who and text in impressions.wh",
        ),
        ({"sku": ["a"] * 8}, "`item`: ids are whole numbers in"),
        ({"sku": None}, "shown.parquet has no column 'sku'; it has view, who"),
        (
            {"who": pa.array([2**63 + 5] * 8, pa.uint64())},
            "row 1: `who` is above 9223372036854775807, the largest whole "
            "number; write the column as text. Received: who=92233720368547758",
        ),
    ],
)
def test_bad_impressions(
    tmp_path: pathlib.Path, columns: dict[str, Any], message: str
) -> None:
    assert message in refused(tmp_path, tables=changed("shown", **columns))


def test_rows_of_later_files_are_named(tmp_path: pathlib.Path) -> None:
    raw_dir = write(tmp_path / "raw-store")
    table = pa.table(changed("shown", clicked=[0] * 7 + [5])["shown"])
    pq.write_table(table, raw_dir / "later.parquet", row_group_size=3)
    schema = replaced('"shown.parquet"', '["shown.parquet", "later.parquet"]')
    # Without a user, that row is dropped; so it gets one.
    table = table.set_column(1, "who", pa.array([1] * 8))
    pq.write_table(table, raw_dir / "later.parquet", row_group_size=3)
    assert "later.parquet, row 8: the label" in refused(tmp_path, schema)
    table = table.set_column(5, "clicked", pa.array(["no"] * 8))
    pq.write_table(table, raw_dir / "later.parquet")
    assert "later.parquet is of type string" in refused(tmp_path, schema)
    table = table.drop_columns(["device"])
    pq.write_table(table, raw_dir / "later.parquet")
    message = refused(tmp_path, schema)
    assert "later.parquet has no column 'clicked'" not in message
    (raw_dir / "later.parquet").write_bytes(b"PAR1 and no more")
    assert "later.parquet is not a Parquet file" in refused(tmp_path, schema)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("utc_offset_h", "utc_ofset_h", "Did you mean 'utc_offset_hours'?"),
        ("hours = 1", "hours = 99", "must be whole hours from -12 to 14"),
        ("hours = 1", "hours = 5.5", "`utc_offset_hours` must be whole hours"),
        (
            "utc_offset_hours = 1",
            'time_fields = ["request_weekdy"]',
            "`time_fields`: there is no time field 'request_weekdy'; known are "
            "behavior_hour, behavior_weekday, behavior_gap, request_hour, "
            "request_weekday, gap_to_request. Did you mean 'request_weekday'?",
        ),
        (
            "utc_offset_hours = 1",
            'time_fields = "request_hour"',
            "`time_fields` must be a list of texts. Received: 'request_hour'",
        ),
        ("hours = 1", "minutes = 841", "whole minutes from -720 to 840"),
        ("hours = 1", "minutes = true", "`utc_offset_minutes` must be whole"),
        (
            "utc_offset_hours = 1",
            "utc_offset_hours = 1\nutc_offset_minutes = 60",
            "only one of utc_offset_hours, utc_offset_minutes can be given",
        ),
        (
            "utc_offset_hours = 1",
            'utc_offset_hours = 1\ntime_zone = "Asia/Tokyo"',
            "only one of utc_offset_hours, time_zone can be given",
        ),
        (
            "utc_offset_hours = 1",
            'time_zone = "Europe/Kopenhagen"',
            "`time_zone`: there is no time zone 'Europe/Kopenhagen'; zones are "
            "named as Europe/Copenhagen. Did you mean 'Europe/Copenhagen'?",
        ),
        ("[users]", "[user]", "unknown key 'user'; known are impressions"),
        ("[behaviors]", "[behaviours]", "Did you mean 'behaviors'?"),
        ("[impressions]", "[impressions", "shop.toml is not a TOML file"),
        ("[impressions]", "[requests]\n[impressions]", "either [impressions]"),
        ('label = "clicked"', "", "impressions: `label` is missing"),
        ('label = "', 'lable = "', "Did you mean 'label'?"),
        ('label = "clicked"', "label = 1", "`label` must be text in quotes"),
        ('label = "cl', 'label = "kl', "Did you mean 'clicked'?"),
        ('user = "who"', 'user = "whom"', "impressions.user: "),
        ('item = "sku"', "", "impressions: `item` is missing"),
        ('"events.parquet"', '"event.parquet"', "Did you mean 'events.parqu"),
        ('"events.parquet"', "7", "behaviors: `files` must be a path or"),
        ('"events.parquet"', '"**a"', "'**a': Invalid pattern"),
        ('"events.parquet"', '"../a.parquet"', "must be within --raw_dir"),
        ('"events.parquet"', '"/a.parquet"', "must be within --raw_dir"),
        (
            'brand = "items.brand"',
            'brand = "events.brand"',
            "behavior_fields.brand: a column is written as TABLE.COLUMN, where "
            "TABLE is behaviors or items. Received: 'events.brand'",
        ),
        (
            'brand = "items.brand"',
            'brand = "item.brand"',
            "Did you mean 'items'?",
        ),
        ('"items.brand"', '"brand"', "TABLE.COLUMN"),
        (
            'brand = "items.brand"',
            'brand = "items.brnd"',
            "things.parquet has no column 'brnd'; it has sku, brand, price. "
            "Did you mean 'brand'?",
        ),
        ('country = "u', 'Country = "u', "must be lower-case letters"),
        ('country = "users', 'mask = "users', "no field can be called 'mask'"),
        (
            'thing = "behaviors.sku"',
            'thing = { column = "behaviors.sku", table = "brandt" }',
            "there is no embedding table 'brandt': give it a section "
            "[tables.brandt], or name one of brand, country, device, thing. "
            "Did you mean 'brand'?",
        ),
        (
            "[candidate_dense",
            "[tables.brnad]\n[candidate_dense",
            "no field has the table 'brnad'",
        ),
        (
            "[candidate_dense",
            "[tables.brand]\nmin = 2\n[candidate_dense",
            "known are kind, size",
        ),
        (
            "[candidate_dense",
            "[tables.brand]\nmin_count = 0\n[candidate_dense",
            "at least 1",
        ),
        (
            "[candidate_dense",
            "[tables.brand]\nsize = 9\n[candidate_dense",
            "does not apply to a v",
        ),
        (
            "[candidate_dense",
            '[tables.brand]\nkind = "hashed"\n[candidate_dense',
            "tables.brand: a hashed table needs a `size`",
        ),
        ("log1p", "log", "`transform` must be one of identity, log1p"),
        (
            "items.price",
            "items.brand",
            "candidate_dense_fields.price: column 'brand'",
        ),
        (
            'brand = "items.brand"\n[candidate_dense',
            'brand = "impressions.device"\n[candidate_dense',
            "the field 'brand' is a column of impressions and another of items",
        ),
        (
            'device = "impressions.device"',
            'brand = "impressions.device"',
            "the field 'brand' is a column of impressions and another of items",
        ),
        (
            'device = "impressions.device"',
            'thing = "impressions.at"',
            "candidate_fields.thing: user_fields.thing has the same name",
        ),
        ("test_start", "test_strat", "Did you mean 'test_start'?"),
        ("test_start", "last_day = true\ntest_start", "one of test_start"),
        ("2020-09-14T12:26:50Z", '"2020-09-14"', "without quotes"),
        ("2020-09-14T12:26:50Z", "1960-01-01", "between 1970 and 2100"),
        (
            "2020-09-14T12:26:50Z",
            "2030-01-01",
            "There is no test request: the split is from 2030-01-01 on (UTC+1)",
        ),
        ("test_start = 2020-09-14T12:26:50Z", "last_day = 1", "only be true"),
        (
            "test_start = 2020-09-14T12:26:50Z",
            "last_fraction = 10",
            "between 0 and 1, such as 0.1. Received: 10",
        ),
    ],
)
def test_bad_schema_files(
    tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    received = refused(tmp_path, replaced(old, new))
    assert message in received
    assert (
        "shop.toml: " in received
        or "shop.toml is" in received
        or ("There is no test request" in received)
    )


@pytest.mark.parametrize(
    "name", ["user_id", "time", "request", "label", "mask", "offset"]
)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("user_fields", 'device = "impressions.device"'),
        ("behavior_fields", 'thing = "behaviors.sku"'),
        ("candidate_fields", 'thing = "impressions.sku"'),
        ("candidate_dense_fields", "price = {"),
    ],
)
def test_names_that_fields_cannot_have(
    tmp_path: pathlib.Path, name: str, kind: str, field: str
) -> None:
    renamed = f"{name} = {field.partition(' = ')[2]}"
    message = refused(tmp_path, replaced(field, renamed))
    assert f"shop.toml: {kind}.{name}: no field can be called {name!r}" in (
        message
    )


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("user_fields", 'device = "impressions.device"'),
        ("candidate_fields", 'thing = "impressions.sku"'),
        ("candidate_dense_fields", 'price = { column = "items.price"'),
    ],
)
def test_the_label_tells_no_candidate(
    tmp_path: pathlib.Path, kind: str, field: str
) -> None:
    end = field.rindex('"', 0, -1) + 1
    message = refused(
        tmp_path, replaced(field, f'{field[:end]}impressions.clicked"')
    )
    assert f"{kind}.{field.split()[0]}: the column 'clicked' is the" in message


def test_another_schema_file_is_another_preparation(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_pipelines.preparation.steps.encode_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    monkeypatch.undo()
    file = tmp_path / "shop.toml"

    def resume(schema: str) -> Store:
        file.write_text(schema)
        return prepare(
            "parquet",
            tmp_path / "raw-store",
            tmp_path / "store",
            options=Options(schema_file=file),
            resume=True,
        )

    with pytest.raises(InputError, match="its details differ"):
        resume(replaced('"users.country"', '"users.id"'))
    assert resume(SCHEMA).num_requests("train") == 3


def test_lists_in_some_files_only(tmp_path: pathlib.Path) -> None:
    schema = replaced(
        "[impressions]",
        "[requests]",
        '"shown.parquet"',
        '["shown.parquet", "more.parquet"]',
        'request = "view"\n',
        "",
        '"impressions.device"',
        '"requests.device"',
        '"impressions.sku"',
        '"requests.sku"',
    )
    lists = {
        name: [[value] for value in TABLES["shown"][name]]
        for name in ("sku", "clicked")
    }
    shown = {**TABLES["shown"], **lists}
    more = {**shown, "sku": TABLES["shown"]["sku"]}
    message = refused(
        tmp_path, schema, {**TABLES, "shown": shown, "more": more}
    )
    assert "requests: column 'sku' is a list in some files" in message


def test_columns_of_one_name(tmp_path: pathlib.Path) -> None:
    table = pa.table(TABLES["shown"])
    table = table.append_column("sku", table["sku"])
    raw_dir = write(tmp_path / "raw-store")
    pq.write_table(table, raw_dir / "twice.parquet")
    message = refused(tmp_path, replaced("shown.parquet", "twice.parquet"))
    assert "twice.parquet has 2 columns 'sku'" in message


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("parquet", Options(), "--schema is missing"),
        (
            "movielens",
            Options(schema_file=pathlib.Path("shop.toml")),
            "--schema does not apply to movielens",
        ),
        (
            "movielens",
            Options(test_start=datetime.date(2020, 9, 14)),
            "--test_start does not apply to movielens",
        ),
    ],
)
def test_flags_that_do_not_fit(
    tmp_path: pathlib.Path, dataset: str, options: Options, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(dataset, tmp_path, tmp_path / "store", options=options)
