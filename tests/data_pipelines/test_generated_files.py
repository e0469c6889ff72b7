"""Generated raw files against the slow reference, and spoilt ones."""

import contextlib
import dataclasses
import gzip
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.prepare import RANGE_BYTES, prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.data_pipelines import (
    generated_alibaba,
    generated_kuairand,
    generated_movielens,
    reference_alibaba,
    reference_kuairand,
    reference_movielens,
)
from tests.data_pipelines.check_store import check_store
from tests.data_pipelines.generated_alibaba import (
    TEST_TIMES,
    TRAINING_TIMES,
    Damaged,
    Spoilt,
)
from tests.data_pipelines.generated_files import RawFile, plain, write
from tests.data_pipelines.raw_files import ALIBABA
from tests.data_pipelines.reference_listwise import Expected

# Thousands of small files, which a disk takes several times as long to make
# and delete as memory does.
_MEMORY = Path("/dev/shm")
_FOLDER = _MEMORY if os.access(_MEMORY, os.W_OK) else None
_REFERENCES: dict[str, Callable[[Path], Expected]] = {
    "alibaba": reference_alibaba.expected_store,
    "kuairand": reference_kuairand.expected_store,
    "movielens": reference_movielens.expected_store,
}
_QUICK = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
_LONG = settings(_QUICK, max_examples=3000, derandomize=False)


# One process, since most of the time of a tiny store is that of starting
# others; parts of a few rows, so that faults and line ends lie anywhere.
def _prepare(
    folder: Path,
    dataset: str = "alibaba",
    name: str = "store",
    num_shards: int = 3,
) -> Store:
    return prepare(
        dataset,
        folder / "raw",
        folder / name,
        num_shards=num_shards,
        num_workers=1,
        range_bytes=128 if num_shards > 1 else RANGE_BYTES,
    )


def _fails(folder: Path, dataset: str = "alibaba") -> str:
    """Returns the message of the error that the raw files must give."""
    with pytest.raises(InputError) as caught:
        _prepare(folder, dataset)
    assert [path.name for path in folder.iterdir()] == ["raw"]
    message = str(caught.value)
    assert "\n" not in message
    return message


def _check_sound(files: list[RawFile], dataset: str = "alibaba") -> None:
    with tempfile.TemporaryDirectory(dir=_FOLDER) as name:
        raw_dir = write(Path(name) / "raw", files)
        expected = _REFERENCES[dataset](raw_dir)
        for split, in_words in (("train", "training"), ("test", "test")):
            if not expected.num_requests(split):
                message = _fails(Path(name), dataset)
                assert f"no {in_words} request" in message
                return
        stores = [
            _prepare(Path(name), dataset, f"store {n}", n) for n in (1, 3)
        ]
        for store in stores:
            check_store(store, expected)
        assert stores[0].manifest["content"] == stores[1].manifest["content"]


def _check_spoilt(spoilt: Spoilt) -> None:
    with tempfile.TemporaryDirectory(dir=_FOLDER) as name:
        raw_dir = write(Path(name) / "raw", spoilt.files)
        message = _fails(Path(name))
        assert str(raw_dir / spoilt.name) in message
        assert re.search(rf"\bline {spoilt.line}\b", message), message


def _check_damaged(damaged: Damaged) -> None:
    """No damage may be read as something else than the sound file."""
    with tempfile.TemporaryDirectory(dir=_FOLDER) as name:
        expected = reference_alibaba.expected_store(
            write(Path(name) / "sound", damaged.files)
        )
        (Path(name) / "damaged").mkdir()
        folder = Path(name) / "damaged"
        raw_dir = write(
            folder / "raw", damaged.files, {damaged.name: damaged.data}
        )
        if not damaged.must_fail:
            with contextlib.suppress(InputError):
                check_store(_prepare(folder), expected)
                return
        assert str(raw_dir / damaged.name) in _fails(folder)


@given(generated_alibaba.raw_files())
@_QUICK
def test_store_holds_what_the_files_say(files: list[RawFile]) -> None:
    _check_sound(files)


@given(generated_alibaba.spoilt_files())
@_QUICK
def test_fault_is_named_with_its_line(spoilt: Spoilt) -> None:
    _check_spoilt(spoilt)


@given(generated_alibaba.damaged_files())
@_QUICK
def test_damaged_packing_is_never_misread(damaged: Damaged) -> None:
    _check_damaged(damaged)


@pytest.mark.slow
@given(generated_alibaba.raw_files())
@_LONG
def test_long_search_for_a_wrong_row(files: list[RawFile]) -> None:
    _check_sound(files)


@pytest.mark.slow
@given(generated_kuairand.raw_files())
@_LONG
def test_long_search_in_kuairand(files: list[RawFile]) -> None:
    _check_sound(files, "kuairand")


@pytest.mark.slow
@given(generated_movielens.raw_files())
@_LONG
def test_long_search_in_movielens(files: list[RawFile]) -> None:
    _check_sound(files, "movielens")


@pytest.mark.slow
@given(generated_alibaba.spoilt_files())
@_LONG
def test_long_search_for_an_unnamed_fault(spoilt: Spoilt) -> None:
    _check_spoilt(spoilt)


@pytest.mark.slow
@given(generated_alibaba.damaged_files())
@_LONG
def test_long_search_for_misread_damage(damaged: Damaged) -> None:
    _check_damaged(damaged)


@given(st.sampled_from([TRAINING_TIMES, TEST_TIMES]), st.data())
@settings(_QUICK, max_examples=6)
def test_a_split_without_requests(
    times: tuple[int, ...], data: st.DataObject
) -> None:
    _check_sound(data.draw(generated_alibaba.raw_files(splits=[times])))


@given(generated_kuairand.raw_files())
@settings(_QUICK, max_examples=15)
def test_kuairand_store_holds_what_the_files_say(files: list[RawFile]) -> None:
    _check_sound(files, "kuairand")


@given(generated_movielens.raw_files())
@settings(_QUICK, max_examples=15)
def test_movielens_store_holds_what_the_files_say(
    files: list[RawFile],
) -> None:
    _check_sound(files, "movielens")


def _small_files() -> dict[str, RawFile]:
    return {name: plain(name, text) for name, text in ALIBABA.items()}


def _bad_values() -> list[tuple[str, str, bytes]]:
    """Returns every bad value once, and at least one of every column."""
    seen: set[bytes] = set()
    chosen = []
    for (name, column), values in generated_alibaba.BAD_VALUES.items():
        for value in values:
            if value in (values[0], b"") or value not in seen:
                chosen.append((name, column, value))
        seen.update(values)
    return chosen


@pytest.mark.parametrize(("name", "column", "value"), _bad_values())
def test_bad_value_is_refused(name: str, column: str, value: bytes) -> None:
    files = _small_files()
    spoilt = {**files, name: files[name].with_value(1, column, value)}
    _check_spoilt(Spoilt(files=[*spoilt.values()], name=name, line=3))


def test_neighbouring_large_ids_are_two() -> None:
    # A missing value in the column must not turn its ids into doubles.
    files = _small_files()
    log = ALIBABA["behavior_log.csv"]
    for brand in (2**63 - 1, 2**63 - 2, "NULL", 2**63 - 2, ""):
        log += f"1,1494010001,pv,5,{brand}\n"
    files["behavior_log.csv"] = plain("behavior_log.csv", log)
    _check_sound([*files.values()])


def test_constant_price_has_a_scale_of_one() -> None:
    # The mean of seven equal doubles is not that double.
    files = _small_files()
    samples = ALIBABA["raw_sample.csv"] + 6 * (
        "1,1494010000,10,430548_1007,0,1\n"
    )
    ads = ALIBABA["ad_feature.csv"].replace("170.0", "0.1")
    files["raw_sample.csv"] = plain("raw_sample.csv", samples)
    files["ad_feature.csv"] = plain("ad_feature.csv", ads.replace("0.01", ""))
    _check_sound([*files.values()])


def test_nearly_constant_price_has_its_scale() -> None:
    # Neighbours among floats: rounded squares lose their spread.
    files = _small_files()
    ads = ALIBABA["ad_feature.csv"].replace("170.0", "99999999.0")
    ads = ads.replace("0.01", "100000008")
    files["ad_feature.csv"] = plain("ad_feature.csv", ads)
    _check_sound([*files.values()])


@pytest.mark.parametrize("packing", [".gz", ".tar.gz"])
def test_changed_byte_in_a_packed_file(packing: str) -> None:
    files = _small_files()
    name = "ad_feature.csv"
    files[name] = dataclasses.replace(files[name], packing=packing)
    # Stored, not deflated: nothing but the checksum can tell.
    unpacked = gzip.decompress(files[name].packed())
    packed = gzip.compress(unpacked, compresslevel=0)
    assert packed.count(b"170.0") == 1
    _check_damaged(
        Damaged(
            files=[*files.values()],
            name=name,
            data=packed.replace(b"170.0", b"180.0"),
            must_fail=True,
        )
    )
