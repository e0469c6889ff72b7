"""The cost of a length: from made-up seconds, and as a user runs it."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.length_scaling import (
    Workload,
    choose,
    cost_per_behavior,
    required_bytes,
    summarize,
    table,
)
from benchmarks.measuring.interleaved import Turns
from sparsectr.errors import InputError
from tests.commands import ForkedCommands

WORKLOAD = Workload(
    lengths=(10, 20, 40),
    batch_size=2,
    num_candidates=3,
    num_rows=50,
    modes=("inference", "training"),
    full_attention=True,
    turns=Turns(num_rounds=3, seconds=0.01),
)


def _rounds(seconds: float) -> list[float]:
    """Three rounds, one fast and one slow."""
    return [0.9 * seconds, seconds, 1.1 * seconds]


def test_takes_the_fixed_part_off() -> None:
    # 5 ms, and 3 microseconds for each of 2 * L behaviors.
    seconds = {n: _rounds(5e-3 + 2 * n * 3e-6) for n in (10, 20, 40)}
    found = cost_per_behavior(seconds, batch_size=2)
    assert found["fixed_milliseconds"] == pytest.approx(5.0)
    assert found["microseconds"] == pytest.approx(3.0)
    assert found["without_fixed"] == pytest.approx(
        {"10": 3.0, "20": 3.0, "40": 3.0}
    )
    assert found["change"] == pytest.approx(0.0, abs=1e-6)
    assert list(found["between"]) == ["10 to 20", "20 to 40"]
    for between in found["between"].values():
        assert between["median"] == pytest.approx(3.0)
        assert between["lower_quartile"] == pytest.approx(2.85)
        assert between["upper_quartile"] == pytest.approx(3.15)


def test_the_longest_history_is_beside_the_line() -> None:
    seconds = {n: _rounds(5e-3 + n * 3e-6) for n in (256, 4096, 16384)}
    seconds[100_000] = _rounds(5e-3 + 100_000 * 4e-6)
    found = cost_per_behavior(seconds, batch_size=1)
    assert found["microseconds"] == pytest.approx(3.0)
    assert found["without_fixed"]["100000"] == pytest.approx(4.0)
    assert found["change"] == pytest.approx(0.0, abs=1e-6)
    assert found["change_of_all"] == pytest.approx(1 / 3)


def test_a_quadratic_cost_shows() -> None:
    seconds = {n: _rounds(1e-3 + n * n * 1e-6) for n in (256, 1024, 4096)}
    found = cost_per_behavior(seconds, batch_size=1)
    costs = [between["median"] for between in found["between"].values()]
    assert costs == pytest.approx([1280.0, 5120.0])
    assert found["change"] is None or found["change"] > 1.0


def test_leaves_out_what_does_not_fit() -> None:
    needed = required_bytes(WORKLOAD, "full", "training", 40)
    # Four times the length, sixteen times the memory; and twice as much in
    # training.
    assert needed == 16 * required_bytes(WORKLOAD, "full", "training", 10)
    assert needed == 2 * required_bytes(WORKLOAD, "full", "inference", 40)
    sparse = required_bytes(WORKLOAD, "evo", "training", 40)
    assert sparse == 4 * required_bytes(WORKLOAD, "evo", "training", 10)
    workload = dataclasses.replace(WORKLOAD, lengths=(10, 4000))
    available = required_bytes(workload, "full", "training", 4000) - 1
    chosen, left_out = choose(workload, available)
    assert ("full", "inference", 4000) in chosen
    assert ("full", "training", 10) in chosen
    assert ("full", "training", 4000) not in chosen
    assert len(chosen) == 7
    (line,) = left_out
    assert line.startswith("Full attention, training, 4000 behaviors: needs")
    assert "about 11.4 GiB" in line


def test_refuses_a_history_that_does_not_fit_at_all() -> None:
    workload = dataclasses.replace(WORKLOAD, lengths=(10, 10**9))
    with pytest.raises(InputError, match="--lengths: SparseCTR, inference, 1"):
        choose(workload, 2**40)


def _result() -> dict:
    seconds = {
        f"evo {mode} {n}": _rounds(n * factor)
        for mode, factor in (("inference", 1e-4), ("training", 3e-4))
        for n in WORKLOAD.lengths
    }
    seconds |= {f"score {n}": _rounds(1e-4) for n in WORKLOAD.lengths}
    seconds["full inference 10"] = _rounds(7e-3)
    quartiles = ("lower_quartile", "median", "upper_quartile")
    return {
        "workload": dataclasses.asdict(WORKLOAD),
        "seconds": {
            name: dict(zip(quartiles, found, strict=True))
            for name, found in seconds.items()
        },
        **summarize(WORKLOAD, seconds),
        "left_out": ["Full attention, inference, 20 behaviors: too large."],
        "load": {"busy": True, "others_share": 0.25},
        "precision": "float32",
        "execution": "XLA",
        "environment": {"gpus": [], "processor": "made-up", "cpu_cores": 2},
    }


def test_compares_round_by_round() -> None:
    result = _result()
    assert result["full_over_evo"]["training"] == {}
    (ratio,) = result["full_over_evo"]["inference"].values()
    assert ratio["median"] == pytest.approx(7.0)
    score = result["whole_pass_over_score"]
    assert [found["median"] for found in score.values()] == pytest.approx(
        [10.0, 20.0, 40.0]
    )
    longest = result["score_of_longest_over_shortest"]
    assert longest["median"] == pytest.approx(1.0)


def test_table_says_what_is_missing_and_what_disturbed() -> None:
    text = table(WORKLOAD, _result())
    lines = text.splitlines()
    (row,) = (line for line in lines if line.startswith("full inference"))
    assert row.split()[2:] == ["7", "(6.3-7.7)", "-", "-"]
    assert "Left out: Full attention, inference, 20 behaviors" in text
    assert "others took 25%" in text
    assert "(wanted: 10%)" in text


def test_draws(tmp_path: Path) -> None:
    length_plot = pytest.importorskip("benchmarks.attention.length_plot")
    path = tmp_path / "plot.png"
    length_plot.draw(_result(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "modes",
    [
        ("inference",),
        pytest.param(("inference", "training"), marks=pytest.mark.slow),
    ],
)
def test_measures(
    modes: tuple[str, ...], command: ForkedCommands, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    result = command(
        "benchmarks.length_scaling",
        "--lengths=16,32",
        "--num_candidates=2",
        "--num_rows=50",
        "--num_rounds=2",
        "--seconds=0.01",
        "--nofull_attention",
        f"--output={output}",
        *(f"--modes={mode}" for mode in modes),
    )
    assert result.returncode == 0, result.stderr
    assert "evo inference" in result.stdout
    found = json.loads(output.read_text())
    assert set(found["seconds"]) == {
        *(f"evo {mode} {n}" for mode in modes for n in (16, 32)),
        "score 16",
        "score 32",
    }
    # Compilation is left out.
    assert all(spread["median"] < 1.0 for spread in found["seconds"].values())
    assert list(found["cost_per_behavior"]) == list(modes)
    assert set(found["whole_pass_over_score"]) == {"16", "32"}
    assert found["workload"]["lengths"] == [16, 32]
    assert found["environment"]["tensorflow"]
