"""A sweep: what runs, that stops lose nothing, what is refused and said."""

import json
import pathlib
import shutil
from typing import Any

import pytest

from benchmarks.sweeps.sweep_file import SweepFile
from benchmarks.sweeps.sweep_plan import (
    PlannedVariant,
    plan_variants,
    read_sweep,
    sweep_names,
)
from benchmarks.sweeps.sweep_table import markdown
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.commands import ROOT, ForkedCommands, assert_refused

RESULTS = ROOT / "benchmarks" / "results"
PROTOCOL = {
    "dataset": "alibaba",
    "sweep": None,
    "part": "validation",
    "base_flags": [],
    "train_flags": "--max_steps=3",
    "content": "abc",
    "data_source": "synthetic sample",
    "split": {"test_time": 7},
}
AUCS = {"evo": 0.70, "full": 0.72}
NUM_RESAMPLES = 5


@pytest.fixture(scope="module")
def variants(tiny_store: Store) -> list[PlannedVariant]:
    flags = {"evo": (), "full": ("--model.attention=full",)}
    return plan_variants(flags, ["--dataset=alibaba"], tiny_store)


def _result(name: str, seed: str) -> dict[str, Any]:
    auc = AUCS[name] + 0.001 * int(seed) * (1 if name == "evo" else 2)
    return {
        "split": "validation",
        "data_source": {"content": "abc"},
        "environment": {"commit": "c0"},
        "metrics": {"auc": auc},
        "num_parameters": {"dense": 1234, "embedding": 5},
        "train_seconds": 10.0,
        "compile_seconds": 2.0,
        "requests_per_second": 3.0,
        "peak_memory_bytes": 4,
        "resampled_aucs": [auc + 0.01 * n for n in range(NUM_RESAMPLES)],
    }


def _run(file: SweepFile, variants: list[PlannedVariant], stop: int) -> list:
    """Runs two seeds, and is interrupted in the run after `stop` of them."""
    done: list[tuple[str, str]] = []

    def train(variant: PlannedVariant, seed: str) -> dict[str, Any]:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append((variant.name, seed))
        return _result(variant.name, seed)

    file.begin(PROTOCOL, variants)
    file.run_missing(variants, ["0", "1"], train, lambda: None)
    return done


def test_goes_on_where_it_stopped(
    variants: list[PlannedVariant], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "sweep.json"
    with pytest.raises(KeyboardInterrupt):
        _run(SweepFile(path), variants, 2)
    stopped = json.loads(path.read_text())
    assert list(stopped["runs"]) == ["evo/0", "full/0"]  # a seed together
    # Of a single seed, over users: the same ones for both.
    full = stopped["summary"]["full"]
    assert full["gain_interval_over"] == "users"
    assert full["gain_interval"] == pytest.approx([0.02, 0.02])

    assert _run(SweepFile(path), variants, 9) == [("evo", "1"), ("full", "1")]
    found = json.loads(path.read_text())
    for key, run in stopped["runs"].items():
        assert found["runs"][key] == run
    full = found["summary"]["full"]
    assert full["gain_mean"] == pytest.approx(0.0205)
    assert full["gain_interval_over"] == "seeds"
    # Of two seeds, whose differences are 0.02 and 0.021: t of one degree.
    half = 12.706 * 0.0005
    low, high = full["gain_interval"]
    assert (low, high) == pytest.approx((0.0205 - half, 0.0205 + half), 1e-3)
    assert _run(SweepFile(path), variants, 0) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"content": "abd"}, "another digest of the data: 'abc', not 'abd'"),
        ({"part": "test"}, "another part that is scored: 'validation'"),
        ({"train_flags": ""}, "another --train_flags: '--max_steps=3'"),
        ({"sweep": "attention"}, "another sweep: None"),
        ({"dataset": "kuairand"}, "another data set"),
    ],
)
def test_refuses_by_name_what_must_not_be_mixed(
    variants: list[PlannedVariant],
    tmp_path: pathlib.Path,
    changed: dict[str, Any],
    named: str,
) -> None:
    path = tmp_path / "sweep.json"
    _run(SweepFile(path), variants, 9)
    with pytest.raises(
        InputError, match=r"(?s)sweep\.json has runs of"
    ) as error:
        SweepFile(path).begin(PROTOCOL | changed, variants)
    assert named in str(error.value)


def test_refuses_other_flags_of_a_variant_and_other_data(
    tiny_store: Store, variants: list[PlannedVariant], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "sweep.json"
    _run(SweepFile(path), variants, 9)
    flags = {"evo": (), "full": ("--model.attention=nsa",)}
    others = plan_variants(flags, ["--dataset=alibaba"], tiny_store)
    with pytest.raises(InputError, match="another flags of variant full"):
        SweepFile(path).begin(PROTOCOL, others)
    file = SweepFile(path)
    with pytest.raises(InputError, match="another part that is scored"):
        file.add(variants[0], "2", _result("evo", "2") | {"split": "test"})
    path.write_text("[]")
    with pytest.raises(InputError, match="is no file of"):
        SweepFile(path)


def test_table_and_picture(
    variants: list[PlannedVariant], tmp_path: pathlib.Path
) -> None:
    file = SweepFile(tmp_path / "sweep.json")
    _run(file, variants, 9)
    report = file.report
    text = markdown(report, "train_seconds")
    assert text.startswith("**SYNTHETIC data.** variants on alibaba")
    assert "AUC of the validation; flags of all runs: --max_steps=3." in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    evo, full = lines[2:]
    assert evo.startswith("| evo | 2 | 0.7005 | 0.0007 | - | - |")
    assert full.startswith("| full | 2 | 0.7210 | 0.0014 | +0.0205 | +0.01")
    costs = {v.name: v.flops for v in variants}
    assert costs["full"] > 2 * costs["evo"] > 0
    assert f"| {costs['full'] / 1e6:,.0f} |" in full
    assert "\nBase: evo. AUC: mean and" in text
    report["variants"]["nsa"] = []
    assert "**Not there**: nsa." in markdown(report, "flops")

    pytest.importorskip("matplotlib")
    from benchmarks.sweeps.sweep_picture import draw, picture

    figure = picture(report, "state_bytes")
    gains, against = figure.axes
    assert [t.get_text() for t in gains.get_yticklabels()] == ["evo", "full"]
    assert len(gains.containers) == 1  # the base has no difference
    assert len(against.containers) == 2
    draw(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "sweep.json"]


@pytest.mark.parametrize(
    ("name", "part", "train_flags", "best"),
    [
        ("fields_ebnerd", "test", "", "both"),
        ("fields_kuairand", "validation", "", None),
        (
            "ablation_alibaba_synthetic",
            "test",
            "--data.max_history=128 --data.length_buckets=",
            "sparse_ctr",
        ),
        ("kuairand", "test", "", "sparse_ctr"),
        ("movielens", "test", "", "sparse_ctr"),
    ],
)
def test_opens_files_of_before(
    name: str, part: str, train_flags: str, best: str | None
) -> None:
    file = SweepFile(RESULTS / f"{name}.json")
    assert file.report["part"] == part
    assert file.report["train_flags"].replace("'", "") == train_flags
    before, found = file.report["summary"], file.summary()
    assert found.keys() == before.keys()
    for variant, values in before.items():
        for key, value in values.items():
            assert found[variant][key] == pytest.approx(value)
    if best:
        assert max(found, key=lambda v: found[v]["auc_mean"]) == best
    assert markdown(file.report | {"summary": found}, "flops").count("\n") > 4


@pytest.mark.parametrize("name", sweep_names())
@pytest.mark.parametrize("dataset", ["alibaba", "kuairand"])
def test_flags_of_every_sweep_make_recipes(
    name: str, dataset: str, tiny_store: Store
) -> None:
    sweep = read_sweep(name)
    shared = [f"--dataset={dataset}", *sweep.flags, "--validation"]
    planned = plan_variants(sweep.variants, shared, tiny_store)
    assert [variant.name for variant in planned] == list(sweep.variants)
    recipes = [v.config.model for v in planned]
    configs = [v.config.to_json() for v in planned]
    assert len(set(configs)) == len(configs)
    assert all(v.config.train.validation for v in planned)
    assert all(v.flops > 0 and v.state_bytes > 0 for v in planned)
    assert not any("{" in flag for v in planned for flag in v.flags)
    # The base is the recipe as it stands, but where sizes are what varies.
    if name != "scaling_law":
        usual = plan_variants({"usual": ()}, shared, tiny_store)[0].config
        assert recipes[0] == usual.model


def test_models_are_sized_by_the_histories_of_the_data(
    tiny_store: Store,
) -> None:
    variants = {"fixed": read_sweep("chunking").variants["fixed"]}
    shared = ["--dataset=alibaba", "--data.max_history=77"]
    (planned,) = plan_variants(variants, shared, tiny_store)
    model: Any = planned.config.model
    assert model.max_history == 77


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep=attention"], "--data_dir or --dataset is missing"),
        (["--data_dir=STORE"], "--sweep or --variant is missing"),
        (["--sweep=chunks", "--data_dir=STORE"], "should be one of"),
        (
            ["--sweep=length", "--data_dir=STORE", "--variants=65"],
            "--variants must be among 64, 128",
        ),
        (
            ["--variant=a --model.atention=full", "--data_dir=STORE"],
            "variant a: Unknown command line flag 'model.atention'",
        ),
        (
            ["--variant=a --novalidation", "--data_dir=STORE"],
            "variant a: what is scored is said by",
        ),
        (
            [
                "--variant=a",
                "--data_dir=STORE",
                "--train_flags=--validation",
                "--novalidation",
            ],
            "variant a: what is scored is said by",
        ),
        (
            ["--variant=a", "--data_dir=STORE", "--dataset=kuairand"],
            "is a store of alibaba, not of kuairand",
        ),
        (["--norun"], "has no runs to show"),
    ],
)
def test_refuses_before_any_run(
    command: ForkedCommands,
    tiny_store: Store,
    tmp_path: pathlib.Path,
    flags: list[str],
    message: str,
) -> None:
    given = [flag.replace("STORE", str(tiny_store.path)) for flag in flags]
    done = command("benchmarks.sweep", *given, f"--output={tmp_path}/a.json")
    assert_refused(done, message)
    assert list(tmp_path.iterdir()) == []


def test_shows_what_is_there(
    command: ForkedCommands, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "movielens.json"
    shutil.copy(RESULTS / path.name, path)
    before = path.read_text()
    done = command("benchmarks.sweep", "--norun", f"--output={path}")
    assert done.returncode == 0, done.stderr
    assert "| sparse_ctr | 3 | 0.7962 | 0.0005 |" in done.stdout
    assert path.with_suffix(".md").read_text() == done.stdout
    assert path.with_suffix(".png").exists()
    assert path.read_text() == before


@pytest.mark.slow
def test_from_a_store_to_the_table(
    command: ForkedCommands, tiny_store: Store, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "sweep.json"
    flags = (
        f"--data_dir={tiny_store.path}",
        "--variant=mean --model.name=mean_pooling",
        "--variant=wide --model.name=mean_pooling --model.width=16",
        "--seeds=0",
        "--train_flags=--model.embedding_dim=4 --data.max_history=8 "
        "--batch_size=16 --max_steps=3 --nojit_compile",
        f"--output={path}",
        f"--folder={tmp_path / 'runs'}",
    )
    first = command("benchmarks.sweep", *flags, "--variants=mean")
    assert first.returncode == 0, first.stderr
    stopped = json.loads(path.read_text())
    done = command("benchmarks.sweep", *flags)
    assert done.returncode == 0, done.stderr
    assert "sweep: wide, seed 0 (1 of 1)" in done.stderr
    assert "sweep: mean" not in done.stderr
    found = json.loads(path.read_text())
    assert found["runs"]["mean/0"] == stopped["runs"]["mean/0"]
    assert found["runs"].keys() == {"mean/0", "wide/0"}
    for run in found["runs"].values():
        counts = tiny_store.manifest["counts"]["validation"]
        assert run["metrics"]["num_candidates"] == counts["candidates"]
        assert len(run["resampled_aucs"]) == 100
    assert "SYNTHETIC" in done.stdout
    assert done.stdout == path.with_suffix(".md").read_text()
    assert found["summary"]["wide"]["gain_interval_over"] == "users"
