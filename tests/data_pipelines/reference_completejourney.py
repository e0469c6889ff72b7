"""What a store of The Complete Journey must hold, read plainly and slowly."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.data_pipelines.decoded_store import Values
from tests.data_pipelines.reference_listwise import (
    Behavior,
    Expected,
    Fields,
    Impression,
    Raw,
    build,
)

_HOUSEHOLD = (
    *("age", "income", "home_ownership", "marital_status"),
    *("household_size", "household_comp", "kids_count"),
)
_PRODUCT = (
    *("manufacturer_id", "department", "brand"),
    *("product_category", "product_type"),
)
_NUMBERS = ("behavior_quantity", "behavior_sales_value")
FIELDS = Fields(
    user={name: name for name in ("user_id", *_HOUSEHOLD, "store_id")},
    behavior={name: name for name in ("product_id", *_PRODUCT, "store_id")},
    candidate={name: name for name in ("product_id", *_PRODUCT)},
    min_count=dict.fromkeys(
        (
            *("user_id", "store_id", "product_id"),
            *("manufacturer_id", "product_category", "product_type"),
        ),
        2,
    ),
    numbers=_NUMBERS,
    log_scaled=_NUMBERS,
)


def expected_store(raw_dir: Path) -> Expected:
    """Returns what a store of these files must hold."""
    products = {
        row["product_id"]: {name: row[name] for name in _PRODUCT}
        for row in _rows(raw_dir, "products")
    }
    unknown = {"candidates": 0, "behaviors": 0}

    def features(row: dict[str, Any], kind: str) -> Values:
        unknown[kind] += row["product_id"] not in products
        return {
            "product_id": row["product_id"],
            **products.get(row["product_id"], dict.fromkeys(_PRODUCT)),
        }

    households = {
        row["household_id"]: {name: row[name] for name in _HOUSEHOLD}
        for row in _rows(raw_dir, "households")
    }
    behaviors = [
        Behavior(
            user_id=row["household_id"],
            time=row["time"],
            values={
                **features(row, "behaviors"),
                "store_id": row["store_id"],
                "quantity": float(row["quantity"]),
                "sales_value": float(np.float32(row["sales_value"])),
            },
        )
        for row in _rows(raw_dir, "purchases")
    ]
    impressions = [
        Impression(
            user_id=row["household_id"],
            time=row["time"],
            request=(row["time"], row["basket_id"]),
            label=row["label"],
            values=features(row, "candidates"),
            profile={
                **households.get(
                    row["household_id"], dict.fromkeys(_HOUSEHOLD)
                ),
                "user_id": row["household_id"],
                "store_id": row["store_id"],
            },
        )
        for row in _rows(raw_dir, "requests")
    ]
    times = sorted(impression.time for impression in impressions)
    return build(
        Raw(
            fields=FIELDS,
            users=dict(households),
            behaviors=behaviors,
            impressions=impressions,
            test_time=times[len(times) * 9 // 10],
            dropped={},
            incomplete={
                f"{kind} of a product without features": number
                for kind, number in unknown.items()
            },
        )
    )


def _rows(raw_dir: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(raw_dir / f"{name}.parquet").to_pylist()
