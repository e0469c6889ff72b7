import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.stores.hashing import hash_ids, hash_rows, mix

IDS = [0, 1, 2, -1, 1 << 62, -(1 << 63)]
TEXTS = ["", "a", "b", "ab", "ü", "a\0", "长"]


def _number(number: int) -> int:
    """The finalizer of SplitMix64 in plain Python."""
    number %= 1 << 64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ (number >> shift)) * factor % (1 << 64)
    return number ^ (number >> 31)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint8])
def test_mix_is_split_mix(dtype: type) -> None:
    numbers = np.array([0, 1, 2, 77, 100], dtype)
    assert mix(numbers).tolist() == [_number(n) for n in numbers.tolist()]
    assert mix(numbers).dtype == np.uint64


def test_ids_are_mixed_as_64_bits() -> None:
    expected = [_number(n) for n in IDS]
    assert hash_ids(pa.array(IDS)).tolist() == expected
    chunked = pa.chunked_array([IDS[:2], IDS[2:]])
    assert hash_ids(chunked).tolist() == expected


def test_texts_have_hashes_of_their_own() -> None:
    hashed = hash_ids(pa.array(TEXTS))
    assert hashed.dtype == np.uint64
    assert len(set(hashed.tolist())) == len(TEXTS)
    # Neither chunks nor the texts beside them matter.
    chunked = pa.chunked_array([TEXTS[5:], TEXTS[:5], TEXTS[:1]], pa.string())
    again = hash_ids(chunked).tolist()
    assert again == [*hashed[5:], *hashed[:5], hashed[0]]
    for nothing in (pa.array([], pa.string()), pa.chunked_array([], "string")):
        assert hash_ids(nothing).tolist() == []


def test_another_process_gives_the_same(repository: Path) -> None:
    code = (
        "import pyarrow as pa\n"
        "from data_pipelines.stores.hashing import hash_ids\n"
        f"print(hash_ids(pa.array({TEXTS!r})).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={"PYTHONHASHSEED": "12"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(hash_ids(pa.array(TEXTS)).tolist())


def test_consecutive_ids_spread_evenly() -> None:
    for step in (1, 7, 1024):
        hashed = hash_ids(pa.array(np.arange(70_000) * step))
        counts = np.bincount((hashed % np.uint64(7)).astype(int), minlength=7)
        assert counts.min() > 9_600
        assert counts.max() < 10_400


def test_rows_count_by_value_place_and_bits() -> None:
    ids = np.array([3, 4, 3, 0], np.uint8)
    price = np.array([0.0, 1.0, -0.0, np.nan], np.float32)
    hashed = hash_rows([ids, price]).tolist()
    assert len(set(hashed)) == 4
    # The width of a column is not a value.
    assert hash_rows([ids.astype(np.int32), price]).tolist() == hashed
    assert hash_rows([price, ids]).tolist() != hashed
    assert hash_rows([ids, ids, price]).tolist() != hashed
    assert hash_rows([ids[1:], price[1:]]).tolist() == hashed[1:]
    assert hash_rows([ids[:0], price[:0]]).tolist() == []
