"""The benchmark with tiny files, as a user runs it."""

import json
from pathlib import Path

import pytest

from benchmarks import preparation
from benchmarks.made_data.alibaba_files import (
    PUBLISHED_BEHAVIORS,
    write_made_files,
)
from data_pipelines.prepare import prepare
from tests import commands


def test_prepares_made_files(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    (tmp_path / "work").mkdir()
    result = commands.run(
        "benchmarks.preparation",
        "--num_behaviors=20000,40000",
        "--statistics",
        f"--folder={tmp_path / 'work'}",
        f"--output={output}",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "work").iterdir()) == []
    found = json.loads(output.read_text("utf-8"))
    assert found["data"].startswith("made")
    smaller, larger = found["runs"]
    for run, number in ((smaller, 20_000), (larger, 40_000)):
        assert run["num_behaviors"] == number
        assert run["statistics"]["adgroup"]["pairs"] > 0
        # Some repeat, and a user or two may have no request.
        assert 0.85 * number < run["kept_behaviors"] < 0.96 * number
        # btag 1, cate and brand 2 to 4 bytes, time 4.
        assert 9.0 <= run["store_bytes_per_behavior"] <= 12.5
        assert run["raw_bytes_per_behavior"] > 25.0
        # pyarrow and pandas alone take more.
        assert 0.03 < run["peak_memory_gib"] < 4.0
        assert run["seconds"] > 0.5
    whole = found["published_log"]
    assert whole["num_behaviors"] == PUBLISHED_BEHAVIORS
    assert whole["from"] == [20_000, 40_000]


@pytest.mark.slow
def test_compares_with_and_without_statistics(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    result = commands.run(
        "benchmarks.preparation",
        "--num_behaviors=5000",
        "--statistics",
        "--rounds=1",
        f"--output={output}",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text("utf-8"))
    without, with_ = found["runs"]
    assert without["statistics"] is None
    assert with_["statistics"]["adgroup"]["pairs"] > 0
    assert with_["store_bytes"] > without["store_bytes"]
    assert with_["processor_seconds"] > 0.5
    assert found["ratios"] == [preparation.compare(found["runs"])]
    assert "published_log" not in found


def test_compares_medians() -> None:
    runs = [
        {
            "num_behaviors": 10,
            "statistics": statistics,
            "seconds": seconds,
            "processor_seconds": 2.0 * seconds,
        }
        for statistics, seconds in zip(
            [None, {"brand": {}}] * 3,
            (2.0, 3.0, 9.0, 9.0, 1.0, 1.0),
            strict=True,
        )
    ]
    assert preparation.compare(runs) == {
        "num_behaviors": 10,
        "seconds_with_to_without": 1.5,
        "processor_seconds_with_to_without": 1.5,
    }


def test_extrapolates_growth_alone() -> None:
    runs = [
        {
            "num_behaviors": number,
            "seconds": 60.0 + number / 1e6,
            "store_bytes": 10 * number,
            "peak_working_bytes": 7 + 27 * number,
        }
        for number in (50_000_000, 10_000_000, 200_000_000)
    ]
    assert preparation.extrapolate(runs) == {
        "num_behaviors": PUBLISHED_BEHAVIORS,
        "from": [50_000_000, 200_000_000],
        "minutes": round(1 + PUBLISHED_BEHAVIORS / 1e6 / 60, 1),
        "store_gb": round(PUBLISHED_BEHAVIORS / 1e8, 2),
        "working_gb": round(27 * PUBLISHED_BEHAVIORS / 1e9, 2),
    }


def test_made_files_are_the_same_at_each_call(tmp_path: Path) -> None:
    write_made_files(tmp_path / "deep/raw", 5000)
    write_made_files(tmp_path / "again", 5000)
    for path in (tmp_path / "deep/raw").iterdir():
        assert (
            path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        )


def test_made_files_have_the_quirks(tmp_path: Path) -> None:
    write_made_files(tmp_path / "raw", 300_000)
    manifest = prepare("alibaba", tmp_path / "raw", tmp_path / "s").manifest
    assert manifest["data_source"] == "synthetic sample"
    rows, dropped = manifest["rows"], manifest["dropped"]
    assert rows["behaviors"]["read"] == 300_000
    assert dropped["behaviors at an impossible time"] > 0
    assert 0.05 < dropped["repeated behaviors"] / 300_000 < 0.08
    assert manifest["incomplete"]["users without a profile"] > 0
    assert rows["items"]["read"] == 846_811
