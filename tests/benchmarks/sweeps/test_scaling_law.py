"""The fit on made points: of known constants, and of noise alone."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from benchmarks.sweeps.power_law import fit, fit_with_intervals
from benchmarks.sweeps.scaling_law import points_of, scaling_law
from tests.commands import ForkedCommands
from tests.made_sweep import (
    LIMIT,
    SCALE,
    flops_of,
    made_runs,
)

FLOPS = np.array([flops_of(s, n) for s in range(4) for n in range(4)])


@pytest.mark.parametrize("exponent", [0.05, 0.3, 1.0, 2.0])
def test_finds_the_constants_without_noise(exponent: float) -> None:
    scale = 0.02 * FLOPS.min() ** exponent
    law = fit(FLOPS, 0.75 - scale / FLOPS**exponent)
    assert law.exponent == pytest.approx(exponent, rel=1e-3)
    assert law.limit == pytest.approx(0.75, rel=1e-4)
    assert law.scale == pytest.approx(scale, rel=3e-2)
    assert law.r_squared == pytest.approx(1.0)


@pytest.mark.parametrize("exponent", [0.3, 0.6])
def test_intervals_hold_the_constants(exponent: float) -> None:
    found = scaling_law(made_runs(exponent, noise=1e-4, num_seeds=3))
    assert found is not None
    assert found["is_identifiable"], found["unknown_because"]
    low, high = found["alpha"]["interval"]
    assert low < exponent < high < 2.0 * exponent
    low, high = found["limit"]["interval"]
    assert low < LIMIT < high
    low, high = found["scale"]["interval"]
    assert low < SCALE * flops_of(0, 0) ** exponent < high
    assert found["r_squared"] > 0.99
    assert found["sentences"][0].startswith("AUC = E - A / FLOPs^alpha")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_noise_alone_has_no_law(num_seeds: int, seed: int) -> None:
    runs = made_runs(0.3, noise=1e-3, num_seeds=num_seeds, seed=seed, rise=0.0)
    found = scaling_law(runs)
    assert found is not None
    assert not found["is_identifiable"]
    assert found["sentences"][0].startswith("Not identifiable: ")


@pytest.mark.parametrize("seed", range(3))
def test_a_logarithm_has_no_limit(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=(3, 16))
    auc = 0.7 + 0.004 * np.log(FLOPS) + noise[0]
    found = fit_with_intervals(FLOPS, auc, np.tile(auc, (200, 1)))
    low, high = found.exponent
    assert low < 0.0 < high
    assert found.unknown_because is not None
    assert "has no limit" in found.unknown_because


def test_noise_too_large_for_the_exponent_makes_it_huge() -> None:
    """It rises for certain, at the very first step: how fast is not known."""
    auc = np.where(np.arange(16) > 0, 0.75, 0.70)
    order = np.argsort(FLOPS)
    generator = np.random.default_rng(0)
    drawn = auc + generator.normal(scale=1e-4, size=(200, 16))
    found = fit_with_intervals(FLOPS[order], auc, drawn)
    assert found.unknown_because == "the interval of alpha is huge"


def test_refuses_too_few_points() -> None:
    with pytest.raises(ValueError, match="`flops` must have 5 different"):
        fit_with_intervals(FLOPS[:4], FLOPS[:4], FLOPS[np.newaxis, :4])
    runs = dict(list(made_runs(0.3, noise=0.0, num_seeds=1).items())[:4])
    assert scaling_law(runs) is None
    assert scaling_law({"small-128": {}}) is None


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize(
    ("earns", "advice"),
    [
        ("length", "Grow the length. "),
        ("size", "Grow the size. "),
        ("either", "Grow either: "),
        ("neither", "Grow neither: "),
    ],
)
def test_says_what_to_grow(earns: str, advice: str, num_seeds: int) -> None:
    runs = made_runs(
        0.3,
        noise=1e-4,
        num_seeds=num_seeds,
        rise=0.0 if earns == "neither" else 1.0,
        by=earns if earns in ("length", "size") else None,
    )
    found = scaling_law(runs)
    assert found is not None
    assert found["sentences"][1].startswith(advice)
    assert found["growth"] is not None
    growth = found["growth"]
    for name, (low, high) in {
        name: growth[name]["interval"] for name in ("length", "size", "both")
    }.items():
        assert low <= growth[name]["value"] <= high


def test_points_are_means_over_the_seeds_that_all_have() -> None:
    runs = made_runs(0.3, noise=1e-3, num_seeds=2)
    name = list(runs)[5]
    auc = runs[name]["0"]["metrics"]["auc"]
    del runs[name]["1"]
    points = points_of(runs)
    assert points is not None
    assert points.num_seeds == 1
    assert points.auc[5] == auc
    assert points.drawn.shape[1] == 16
    # Users are drawn alike for all points.
    assert np.std(points.drawn[:, 0]) > 1e-3
    assert np.std(points.drawn[:, 1] - points.drawn[:, 0]) < 1e-9


def test_picture_has_both_kinds_of_lines(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.sweeps.scaling_picture import scaling_picture

    law: Any = scaling_law(made_runs(0.3, noise=1e-4, num_seeds=1))
    figure = scaling_picture(law, "made")
    of_size, of_length = figure.axes
    for axes, word in ((of_size, "parameters"), (of_length, "behaviors")):
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert sum(word in label for label in labels) == 4
    figure.savefig(tmp_path / "a.png")
    assert law["sentences"][0] in figure.get_suptitle()


def test_the_command_shows_the_law(
    command: ForkedCommands, tmp_path: pathlib.Path
) -> None:
    made = made_runs(0.3, noise=1e-4, num_seeds=2)
    path = tmp_path / "law.json"
    report = {
        "dataset": "alibaba",
        "sweep": "scaling_law",
        "train_flags": "--validation",
        "data_source": "synthetic sample",
        "runs": {
            f"{name}/{seed}": run | {"train_seconds": 1.0}
            for name, of_variant in made.items()
            for seed, run in of_variant.items()
        },
    }
    path.write_text(json.dumps(report))
    done = command("benchmarks.sweep", "--norun", f"--output={path}")
    assert done.returncode == 0, done.stderr
    law = scaling_law(made)
    assert law is not None
    assert done.stdout.endswith("\n\n" + "\n".join(law["sentences"]) + "\n")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"law.json", "law.md", "law.png", "law.law.png"}
