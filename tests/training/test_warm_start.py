"""A run that goes on from another one on a store that has grown."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from data_pipelines.datasets.open_dataset import Options
from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.rolling_report import rolling_days
from sparsectr.training.devices import make_strategy
from sparsectr.training.load_model import load_model
from sparsectr.training.run import follow_chief, train_and_evaluate
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from sparsectr.training.warm_start import find_warm_start
from sparsectr.training.workers import Workers
from tests.commands import run
from tests.data_pipelines.days import SHOP, write_shop_days
from tests.tiny_run import CONFIG, change, saved_state

FIRST_DAY = SHOP.replace("last_day = true", "test_start = 2020-09-14T00:01:00Z")

_CONFIG = change(
    dataclasses.replace(
        CONFIG,
        dataset="parquet",
        model=MeanPoolingRecipe(embedding_dim=4),
        data=dataclasses.replace(CONFIG.data, candidate_buckets=(4,)),
    ),
    "train",
    ema_decay=0.9,
    max_steps=4,
    checkpoint_every=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, one that goes on from it, and a store with a day more."""
    folder = tmp_path_factory.mktemp("warm")
    days = write_shop_days(folder / "raw")
    for name, schema in (("first", FIRST_DAY), ("later", SHOP)):
        (folder / f"{name}.toml").write_text(schema)
    store = folder / "store"
    first = Options(schema_file=folder / "first.toml")
    prepare("parquet", days[1], store, options=first, can_grow=True)
    _run(folder, "run0", None)
    later = Options(schema_file=folder / "later.toml")
    for number in (1, 2):
        prepare(
            "parquet", days[1 + number], store, options=later, is_update=True
        )
        if number == 1:
            _run(folder, "run1", "run0")
    return folder


def _run(folder: Path, name: str, before: str | None, **options: Any) -> None:
    train_and_evaluate(
        _CONFIG,
        folder / "store",
        RunDirectory(folder / name),
        resume=False,
        before=RunDirectory(folder / before) if before else None,
        **options,
    )


def _result(folder: Path, name: str) -> Any:
    return json.loads((folder / name / "result.json").read_text())


def test_old_model_scores_new_days_as_it_did(folder: Path) -> None:
    """The test of a run is what the next one is trained on.

    Values that have an id since are out of vocabulary for the old model.
    """
    before, result = (_result(folder, name) for name in ("run0", "run1"))
    assert any(result["warm_start"]["new_rows"].values())
    (day,) = result["before_training"]
    for name in ("auc", "logloss", "num_candidates"):
        expected = pytest.approx(before["metrics"][name], rel=1e-6)
        assert day[name] == expected, name
    assert result["metrics"]["auc"] != day["auc"]


def test_takes_over_all_that_was_learned(folder: Path, tmp_path: Path) -> None:
    before = RunDirectory(folder / "run1")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    store = Store(folder / "store")
    warm_start = find_warm_start(before, _CONFIG, store)
    trainer = Trainer(_CONFIG, store, run, make_strategy(1), None, warm_start)
    new = {v.path: v.numpy() for v in trainer.model.trainable_variables}
    trainer._begin(warm_start)
    old = saved_state(before.path)
    learned = trainer._checkpointing.learned
    grown = 0
    for part, variables in (
        ("model", learned["model"]),
        ("optimizer", learned["optimizer"]),
        ("average/weights", learned["average"]["weights"]),
        ("average/last_steps", learned["average"]["last_steps"]),
    ):
        for path, variable in variables.items():
            if path.endswith("learning_rate"):
                continue
            name = f"{part}/{path.replace('/', '.S')}"
            expected = old[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
            found = variable.numpy()
            rest = found
            if expected.shape:
                found, rest = found[: len(expected)], found[len(expected) :]
                grown += len(rest) > 0
                # As those of any new run, though it scored meanwhile.
                fresh = new[path][len(expected) :] if part == "model" else 0.0
                np.testing.assert_array_equal(rest, fresh, err_msg=name)
            np.testing.assert_array_equal(found, expected, err_msg=name)
    assert grown >= 4
    steps = sum(_result(folder, f"run{n}")["step"] for n in (0, 1))
    assert warm_start.steps == steps


def test_averages_of_a_run_that_went_on(folder: Path) -> None:
    """What is loaded is what was scored, whose average counts all steps."""
    trained = load_model(RunDirectory(folder / "run1"))
    state = saved_state(folder / "run1")
    name = "model/mean_pooling.Sembedding.Stable_brand.Srows"
    rows = state[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
    (found,) = [
        variable.numpy()
        for variable in trained.model.trainable_variables
        if variable.path.endswith("table_brand/rows")
    ]
    name = name.replace("model/", "average/weights/")
    averages = state[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
    between = (np.minimum(rows, averages) - 1e-6 <= found) & (
        found <= np.maximum(rows, averages) + 1e-6
    )
    assert between.all()
    assert not np.array_equal(found, rows)


def test_rolling_report(folder: Path) -> None:
    runs = [str(folder / f"run{n}") for n in range(2)]
    days = rolling_days(runs)
    assert days[0]["day"] == "2020-09-14"
    assert [day["run"] for day in days] == runs
    assert days[-1]["auc"] == _result(folder, "run1")["metrics"]["auc"]
    with pytest.raises(InputError, match="run0 does not go on from"):
        rolling_days([runs[1], runs[0]])


def test_refuses_another_model(folder: Path) -> None:
    store = Store(folder / "store")
    before = RunDirectory(folder / "run1")
    for config, message in (
        (
            change(_CONFIG, "model", embedding_dim=8),
            r"embedding_dim \(4, 8\) differ",
        ),
        (change(_CONFIG, "train", ema_decay=0.0), r"ema_decay \(0\.9, 0\.0\)"),
    ):
        with pytest.raises(InputError, match=message):
            find_warm_start(before, config, store)


def test_refuses_other_days(folder: Path, tmp_path: Path) -> None:
    store = Store(folder / "store")
    seen = tmp_path / "seen"
    shutil.copytree(folder / "run1", seen)
    values = json.loads((seen / "store.json").read_text())
    values["test_time"] = store.manifest["split"]["test_time"]
    (seen / "store.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="has no day before its test that"):
        find_warm_start(RunDirectory(seen), _CONFIG, store)
    options = Options(schema_file=folder / "later.toml")
    other = prepare(
        "parquet", folder / "raw" / "all", tmp_path / "store", options=options
    )
    with pytest.raises(InputError, match="not the one that"):
        find_warm_start(RunDirectory(folder / "run1"), _CONFIG, other)
    # Whatever its updates say, an id must mean what it did.
    object.__setattr__(other, "updates", store.updates)
    with pytest.raises(InputError, match=r"mean other values|dense_fields"):
        find_warm_start(RunDirectory(folder / "run1"), _CONFIG, other)


def test_is_refused_by_every_worker(tmp_path: Path) -> None:
    workers = ("--workers=2", "--", "--warm_start=/run")
    done = run("sparsectr.launch_local", *workers, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    for worker in ("", "worker 1: "):
        start = f"{worker}error: --warm_start is for one host so far"
        lines = done.stderr.splitlines()
        assert any(line.startswith(start) for line in lines), done.stderr


class _TwoWorkers(Workers):
    """One of two, who hears what the chief said."""

    def __init__(self, said: list[Any], *, is_chief: bool) -> None:
        super().__init__(make_strategy(1))
        self.num_workers = 2
        self.is_chief = is_chief
        self._said = said

    def share(self, value: Any = None) -> Any:
        if self.is_chief:
            self._said.append(value)
        return self._said[-1]


def test_several_workers_cannot_go_on_with_it(folder: Path) -> None:
    run = RunDirectory(folder / "run1")
    store = folder / "store"
    said: list[Any] = []
    chief = _TwoWorkers(said, is_chief=True)
    other = _TwoWorkers(said, is_chief=False)
    message = "run1 began with --warm_start, which is for one host"
    with pytest.raises(InputError, match=message):
        train_and_evaluate(_CONFIG, store, run, resume=True, workers=chief)
    with pytest.raises(InputError, match=message):
        follow_chief(None, None, resume=True, workers=other)
