"""A very small shop as Parquet tables, and its schema file."""

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare import Options, prepare
from data_pipelines.stores.store import Store
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests.data_pipelines.decoded_store import Request, decode

SCHEMA = """
utc_offset_hours = 1
[impressions]
files = "shown.parquet"
user = "who"
time = "at"
request = "view"
item = "sku"
label = "clicked"
[behaviors]
files = "events.parquet"
user = "who"
time = "at"
item = "sku"
[users]
files = "people.parquet"
user = "id"
[items]
files = "things.parquet"
item = "sku"
[user_fields]
country = "users.country"
device = "impressions.device"
[behavior_fields]
thing = "behaviors.sku"
brand = "items.brand"
[candidate_fields]
thing = "impressions.sku"
brand = "items.brand"
[candidate_dense_fields]
price = { column = "items.price", transform = "log1p" }
[split]
test_start = 2020-09-14T12:26:50Z
"""

NOW = 1_600_000_000  # 2020-09-13, 12:26:40 UTC
DAY = 86_400
TEST_TIME = NOW + DAY + 10

TABLES: dict[str, dict[str, list[Any]]] = {
    "shown": {
        # Not in the order of time; view `b` has rows of two seconds, the
        # earlier one below; the last row is nobody's.
        "view": ["c", "b", "a", "a", "b", "d", "e", "x"],
        "who": [1, 1, 1, 1, 1, 2, 1, None],
        "at": [
            NOW + 90,
            NOW + 61,
            NOW + 30,
            NOW + 30,
            NOW + 60,
            NOW + 2 * DAY,
            NOW + 3 * DAY,
            NOW,
        ],
        "device": ["tv", "pc", "tv", "tv", "pc", None, "pc", "pc"],
        "sku": [10, 11, 12, 10, 13, 10, 99, 10],
        "clicked": [0, 1, 0, 1, 0, 1, 0, 0],
    },
    "events": {
        "who": [1, 1, 1, 3, 2, None],
        "at": [NOW + 60, NOW + 29, NOW + 30, NOW, NOW, NOW],
        "sku": [12, 10, 98, 10, 13, 10],
    },
    "people": {"id": [1, 2, 3], "country": ["AT", None, "DE"]},
    "things": {
        "sku": [10, 11, 12, 13],
        "brand": ["x", "y", None, "x"],
        "price": [1.5, 2.5, None, 0.0],
    },
}


def write(folder: pathlib.Path, tables: Any = TABLES) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def changed(table: str, **columns: Any) -> dict[str, Any]:
    """Returns the tables with other columns in one; `None` for without."""
    new = {**TABLES[table], **columns}
    kept = {name: column for name, column in new.items() if column is not None}
    return {**TABLES, table: kept}


def make(
    tmp_path: pathlib.Path,
    schema: str = SCHEMA,
    tables: Any = TABLES,
    name: str = "store",
    **options: Any,
) -> Store:
    raw_dir = write(tmp_path / f"raw-{name}", tables)
    (tmp_path / "shop.toml").write_text(schema)
    store = prepare(
        "parquet",
        raw_dir,
        tmp_path / name,
        options=Options(schema_file=tmp_path / "shop.toml"),
        **options,
    )
    verify_store(store.path)
    return store


def replaced(*pairs: str) -> str:
    """Returns the schema file with texts replaced, old and new in turn."""
    schema = SCHEMA
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert schema.count(old) >= 1, old
        schema = schema.replace(old, new, 1)
    return schema


def refused(tmp_path: pathlib.Path, *args: Any, **kwargs: Any) -> str:
    """Returns the one line of an error, after which nothing is left."""
    with pytest.raises(InputError) as caught:
        make(tmp_path, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"raw-store", "shop.toml"}
    return message


# What the shop's tables must become.


def thing(sku: int | None) -> dict[str, Any]:
    brands = dict(zip([10, 11, 12, 13], ["x", "y", None, "x"], strict=True))
    return {"thing": sku, "brand": brands.get(sku)}


def candidate(sku: int) -> dict[str, Any]:
    prices = dict(zip([10, 11, 12, 13], [1.5, 2.5, None, 0.0], strict=True))
    return {**thing(sku), "price": prices.get(sku)}


FIRST = (NOW + 29, thing(10))
SECOND = (NOW + 30, thing(98))
THIRD = (NOW + 60, thing(12))


def _request(
    time: int, device: str, history: list[Any], candidates: list[Any]
) -> Request:
    return Request(
        user_id=1,
        time=time,
        split="train",
        profile={"country": "AT", "device": device},
        history=history,
        candidates=candidates,
    )


TRAINING = [
    _request(NOW + 30, "tv", [FIRST], [(candidate(12), 0), (candidate(10), 1)]),
    _request(
        NOW + 60,
        "pc",
        [FIRST, SECOND],
        [(candidate(11), 1), (candidate(13), 0)],
    ),
    _request(NOW + 90, "tv", [FIRST, SECOND, THIRD], [(candidate(10), 0)]),
]


def training(store: Store) -> list[Request]:
    return [r for r in decode(store).requests if r.split == "train"]
