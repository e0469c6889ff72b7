"""Stores of equal sizes that are not the same, and equal ones elsewhere."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.raw.split_rule import FromTime
from data_pipelines.stores.store import Store
from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.errors import InputError
from tests.data_pipelines.small_dataset import (
    TEST_TIME,
    drawn_rows,
    prepared,
    small_dataset,
)

_DRAWN = drawn_rows(30)
ROWS = {
    **_DRAWN,
    # Every user and every item is frequent enough from the start.
    "impressions": [
        *_DRAWN["impressions"],
        *(
            (user, 1, user % 21, 5.0, 0, n)
            for user in range(30)
            for n in (0, 1)
        ),
    ],
}


def identity(
    folder: Path, rows: Any = ROWS, num_shards: int = 2, **options: Any
) -> StoreIdentity:
    """Returns the identity of a store that is prepared in `folder`."""
    dataset = small_dataset(rows, folder / "raw", **options)
    return StoreIdentity.of(
        prepared(dataset, folder / "store", num_shards=num_shards)
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> StoreIdentity:
    return identity(tmp_path_factory.mktemp("expected"))


def test_same_files_prepared_elsewhere(
    expected: StoreIdentity, tmp_path: Path
) -> None:
    found = identity(tmp_path)
    assert found == expected
    assert expected.other_ids(found) is None
    assert expected.other_rows(found) is None
    shutil.move(tmp_path / "store", tmp_path / "moved")
    assert StoreIdentity.of(Store(tmp_path / "moved")) == expected


def test_split_moved(expected: StoreIdentity, tmp_path: Path) -> None:
    earlier = FromTime(time=TEST_TIME - 1, rule="from 4 on")
    found = identity(tmp_path, split=earlier)
    sizes = [table.size for table in expected.schema.tables]
    assert [table.size for table in found.schema.tables] == sizes
    # Apart from the statistics of the training rows, sizes are all it has.
    same_schema = dataclasses.replace(found, schema=expected.schema)
    said = expected.other_ids(same_schema)
    assert said is not None
    assert said.startswith("the vocabularies of ")
    assert said.endswith(" differ")
    assert "item" in said


def test_flipped_labels(expected: StoreIdentity, tmp_path: Path) -> None:
    rows = {
        **ROWS,
        "impressions": [
            (*row[:4], 1 - row[4] if n % 2 else row[4], *row[5:])
            for n, row in enumerate(ROWS["impressions"])
        ],
    }
    found = identity(tmp_path, rows)
    assert expected.other_ids(found) is None
    assert "the rows differ" in (expected.other_rows(found) or "")


def test_other_number_of_shards(
    expected: StoreIdentity, tmp_path: Path
) -> None:
    found = identity(tmp_path, num_shards=3)
    assert expected.other_ids(found) is None
    assert expected.other_rows(found) == "it has 3 shards and not 2"


def test_prices_in_cents(expected: StoreIdentity, tmp_path: Path) -> None:
    rows = {
        **ROWS,
        "impressions": [
            (*row[:3], None if row[3] is None else 100 * row[3], *row[4:])
            for row in ROWS["impressions"]
        ],
    }
    found = identity(tmp_path, rows)
    assert expected.other_ids(found) == (
        "the schemas differ in candidate_dense_fields"
    )
    assert "the rows differ" in (expected.other_rows(found) or "")


def test_values_that_are_another_thing(
    expected: StoreIdentity, tmp_path: Path
) -> None:
    # Every id stays, and so does the digest of the rows.
    identity(tmp_path)
    path = tmp_path / "store" / "vocabularies" / "kind.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values[::-1]))
    found = StoreIdentity.of(Store(tmp_path / "store"))
    assert found.content == expected.content
    assert expected.other_ids(found) == "the vocabularies of kind differ"


def test_store_that_cannot_be_known(tmp_path: Path) -> None:
    identity(tmp_path)
    store = Store(tmp_path / "store")
    (store.path / "vocabularies" / "kind.json").unlink()
    with pytest.raises(InputError, match=r"kind\.json is damaged"):
        StoreIdentity.of(store)
