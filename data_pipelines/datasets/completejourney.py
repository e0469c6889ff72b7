"""The Complete Journey: a year of groceries, with MADE negatives.

Raw files: those that `data_pipelines.completejourney_from_wheel` writes, which
says how the requests are made: nobody was shown anything. A request is the
start of a household's basket, with products bought then and as many made
negatives, products that somebody bought in that week. A number measured on
them says nothing of what a shop's own candidates would give; what is real is
the length and the rhythm of the histories.

A history is all purchases of the household before the second of the basket:
whole baskets, each of one second. The test is the last tenth of the
candidates by time. Times are UTC, days and hours those of New York, which the
weeks in the files begin in.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_rows import RawRows
from data_pipelines.raw.raw_table import RawTable, keep
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import LastFraction
from sparsectr.errors import InputError
from sparsectr.schema import (
    LATEST_TIME,
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.time_zone import TimeZone

TRAIN_FRACTION = 0.9

_HOUSEHOLD = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
_PRODUCT = {
    "manufacturer_id": pa.int64(),
    "department": pa.string(),
    "brand": pa.string(),
    "product_category": pa.string(),
    "product_type": pa.string(),
}
_OF_PRODUCT = tuple(
    CategoricalField(name=name, table=name)
    for name in ("product_id", *_PRODUCT)
)
_SEEN_TWICE = (
    *("user_id", "store_id", "product_id"),
    *("manufacturer_id", "product_category", "product_type"),
)


def _table(name: str) -> Table:
    is_text = name in _HOUSEHOLD or _PRODUCT.get(name) == pa.string()
    return Table(
        name=name,
        value_type="string" if is_text else "int",
        min_count=2 if name in _SEEN_TWICE else 1,
    )


# Where a value must be seen twice to have a row of its own, the others train
# the out-of-vocabulary row, which new products of the test then use.
SCHEMA = DatasetSchema(
    name="completejourney",
    tables=tuple(
        map(
            _table,
            ("user_id", *_HOUSEHOLD, "store_id", "product_id", *_PRODUCT),
        )
    ),
    user_fields=tuple(
        CategoricalField(name=name, table=name)
        for name in ("user_id", *_HOUSEHOLD, "store_id")
    ),
    behavior_fields=(
        *_OF_PRODUCT,
        CategoricalField(name="store_id", table="store_id"),
    ),
    behavior_dense_fields=(
        DenseField(name="quantity", transform="log1p"),
        DenseField(name="sales_value", transform="log1p"),
    ),
    candidate_fields=_OF_PRODUCT,
    time_zone=TimeZone.named("America/New_York"),
)

_INT = pa.int64()
_NUMBERS = dict.fromkeys(("quantity", "sales_value"), pa.float32())


def open_completejourney(raw_dir: Path) -> RawDataset:
    """Finds the four files.

    Raises:
        InputError: If one is absent.
    """
    shared = dict.fromkeys(
        ("basket_id", "household_id", "time", "store_id", "product_id"), _INT
    )
    required = tuple(name for name in shared if name != "store_id")
    return RawDataset(
        schema=SCHEMA,
        impressions=RawTable(
            name="impressions",
            sources=_source(raw_dir, "requests.parquet"),
            reader=ParquetReader(
                columns={**shared, "label": _INT},
                required=(*required, "label"),
            ),
            convert=_convert_requests,
        ),
        behaviors=RawTable(
            name="behaviors",
            sources=_source(raw_dir, "purchases.parquet"),
            reader=ParquetReader(
                columns={**shared, **_NUMBERS}, required=required
            ),
            convert=_convert_purchases,
        ),
        users=RawTable(
            name="users",
            sources=_source(raw_dir, "households.parquet"),
            reader=ParquetReader(
                columns={
                    "household_id": _INT,
                    **dict.fromkeys(_HOUSEHOLD, pa.string()),
                },
                required=("household_id",),
            ),
            convert=_name_user,
        ),
        items=RawTable(
            name="items",
            sources=_source(raw_dir, "products.parquet"),
            reader=ParquetReader(
                columns={"product_id": _INT, **_PRODUCT},
                required=("product_id",),
            ),
            convert=keep,
        ),
        item_key="product_id",
        split=LastFraction(fraction=TRAIN_FRACTION, noun="candidates"),
        nouns=("candidates", "a product"),
        data_source="raw files with made negatives",
    )


def _source(raw_dir: Path, name: str) -> tuple[SourceFile, ...]:
    path = raw_dir / name
    if not path.is_file():
        raise InputError(
            f"{raw_dir} has no file {name}; "
            "`data_pipelines.completejourney_from_wheel` makes the files."
        )
    return (SourceFile(path=path),)


def _name_user(rows: RawRows) -> None:
    table = rows.table
    names = {"household_id": "user_id", "basket_id": "request"}
    rows.table = table.rename_columns(
        [names.get(name, name) for name in table.column_names]
    )


def _convert_requests(rows: RawRows) -> None:
    rows.require(
        pc.is_in(rows.table["label"], value_set=pa.array([0, 1])),
        "`label` is 0 or 1",
        "label",
    )
    _check_time(rows)
    _name_user(rows)


def _convert_purchases(rows: RawRows) -> None:
    _check_time(rows)
    _name_user(rows)


def _check_time(rows: RawRows) -> None:
    time = rows.table["time"]
    rows.require(
        pc.and_(pc.greater(time, 0), pc.less(time, LATEST_TIME)),
        "the time is not in Unix seconds",
        "time",
    )
