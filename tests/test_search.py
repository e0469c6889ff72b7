"""A search on the validation: what it tries, and that stops lose nothing."""

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from sparsectr.config import Config, TrainConfig
from sparsectr.errors import InputError
from sparsectr.searching import study as study_module
from sparsectr.searching.dimension import DEFAULT_SPACE, parse_space
from sparsectr.searching.study import Study
from sparsectr.training.run_directory import RunDirectory
from tests.test_config_flags import config_of

CONFIG = Config(
    dataset="kuairand",
    model=MeanPoolingRecipe(),
    train=TrainConfig(validation=True, learning_rate=0.002, newest_share=0.3),
)
SPACE = ("learning_rate=0.001:0.01", "model.width=8,16", "jit_compile=true")

Flags = list[str]
Outcome = Callable[[int, Flags], int]
"""From the number of the call and its flags the status of the process."""


class FakeTraining:
    """Stands for the processes that train; the best rate is 0.003."""

    def __init__(self, outcome: Outcome = lambda number, given: 0) -> None:
        self.given: list[Flags] = []
        self._outcome = outcome

    def __call__(self, command: Flags, **options: Any) -> Any:
        assert command[1:3] == ["-m", "sparsectr.train"]
        assert options == {"check": False, "stdout": 2}
        given = command[3:]
        self.given.append(given)
        run = RunDirectory(_workdir(given))
        if not run.exists:
            (run.path / "checkpoints").mkdir(parents=True)
            run.write_json("config.json", {"flags": given})
        status = self._outcome(len(self.given), given)
        if status == 0:
            run.write_json("result.json", _result(run))
        return subprocess.CompletedProcess(command, status)


def _workdir(given: Flags) -> pathlib.Path:
    (path,) = [f for f in given if f.startswith("--workdir=")]
    return pathlib.Path(path.partition("=")[2])


def _result(run: RunDirectory) -> dict[str, Any]:
    given = json.loads((run.path / "config.json").read_text())["flags"]
    config = config_of(
        *(f for f in given if not f.startswith(("--workdir", "--data_dir")))
    )
    rate = config.train.learning_rate
    return {
        "metrics": {"auc": 0.7 - abs(rate - 0.003)},
        "data_source": {"content": "abc"},
        "train_seconds": 3.5,
        "final_run": {"flags": [f"--learning_rate={rate}"]},
    }


def _study(folder: pathlib.Path, **values: Any) -> Study:
    config = values.pop("config", CONFIG)
    space = parse_space(values.pop("space", SPACE), config)
    return Study(folder, config, "stores/a", space, values.pop("seed", 0))


def _values(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial["values"] for trial in found["trials"]]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(study_module.subprocess, "run", fake)
    return fake


def test_trials_and_the_best(
    training: FakeTraining, tmp_path: pathlib.Path
) -> None:
    found = _study(tmp_path / "search").run(6)
    assert _values(found)[0] == {
        "learning_rate": 0.002,
        "model.width": 8,  # the recipe's 32 is none of the values
        "jit_compile": True,
    }
    rates = [values["learning_rate"] for values in _values(found)]
    assert len(set(rates)) == 6
    assert all(0.001 <= rate <= 0.01 for rate in rates)
    assert {values["model.width"] for values in _values(found)} == {8, 16}
    for given, values in zip(training.given, _values(found), strict=True):
        assert "--validation" in given
        assert "--newest_share=0.3" in given
        assert "--data_dir=stores/a" in given
        assert f"--model.width={values['model.width']}" in given
    best = min(rates, key=lambda rate: abs(rate - 0.003))
    assert found["best"]["values"]["learning_rate"] == best
    assert found["final_run"] == {"flags": [f"--learning_rate={best}"]}
    # Of the others nothing is kept that is large.
    kept = list((tmp_path / "search").glob("trial-*/checkpoints"))
    assert [str(path.parent) for path in kept] == [found["best"]["workdir"]]
    file = tmp_path / "search" / "search.json"
    assert json.loads(file.read_text()) == found


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_a_stop_loses_nothing(
    stopped_at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(study_module.subprocess, "run", FakeTraining())
    whole = _study(tmp_path / "whole").run(5)
    stopped = FakeTraining(lambda number, _: 130 * (number == stopped_at))
    monkeypatch.setattr(study_module.subprocess, "run", stopped)
    study = _study(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        study.run(5)
    study._lock.close()
    rest = FakeTraining()
    monkeypatch.setattr(study_module.subprocess, "run", rest)
    found = _study(tmp_path / "stopped").run(5)
    assert _values(found) == _values(whole)
    workdir = tmp_path / "stopped" / f"trial-{stopped_at - 1:03d}"
    assert rest.given[0] == [f"--workdir={workdir}", "--resume"]
    assert len(stopped.given) + len(rest.given) == 6


def test_more_trials_can_be_added(
    training: FakeTraining, tmp_path: pathlib.Path
) -> None:
    study = _study(tmp_path)
    first = study.run(2)
    study._lock.close()
    assert len(training.given) == 2
    more = _study(tmp_path).run(4)
    assert _values(more)[:2] == _values(first)
    assert len(training.given) == 4


def test_a_failed_trial_is_lost_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    fake = FakeTraining(lambda number, _: 2 * (number == 2))
    monkeypatch.setattr(study_module.subprocess, "run", fake)
    found = _study(tmp_path).run(3)
    assert [trial["auc"] is None for trial in found["trials"]] == [
        False,
        True,
        False,
    ]


def test_where_every_trial_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    fake = FakeTraining(lambda number, _: 2)
    monkeypatch.setattr(study_module.subprocess, "run", fake)
    with pytest.raises(InputError, match=r"The first 3 trials in .* failed"):
        _study(tmp_path).run(9)
    assert len(fake.given) == 3


def test_another_search_is_refused(
    training: FakeTraining, tmp_path: pathlib.Path
) -> None:
    study = _study(tmp_path)
    with pytest.raises(InputError, match="is at work on"):
        _study(tmp_path)
    study.run(1)
    study._lock.close()
    other = dataclasses.replace(CONFIG, model=MeanPoolingRecipe(width=16))
    for values in ({"config": other}, {"seed": 1}, {"space": SPACE[:1]}):
        with pytest.raises(InputError, match="name another --folder"):
            _study(tmp_path, **values)


def test_what_is_tuned_by_default() -> None:
    space = parse_space(DEFAULT_SPACE, CONFIG)
    usual = {dimension.flag: dimension.usual(CONFIG) for dimension in space}
    assert usual == {
        "learning_rate": 0.002,
        "embedding_learning_rate": 0.002,  # that of all, if there is none
        "model.dropout_rate": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=1:2", "has no flag 'learning_rat'. Did you mean"),
        ("learning_rate", "must be a flag of one value, '=', and a range"),
        ("model.head_units=1,2", "must be a flag of one value"),
        ("learning_rate=0:1", "its ends are positive"),
        ("learning_rate=2:1", "the first is the less"),
        ("learning_rate=a:1", "'a' is not a number"),
        ("learning_rate=nan:1", "'nan' is not finite"),
        ("model.width=1:9", "a range is of a flag with fractions"),
        ("model.width=8,x", "'x' is not a number"),
        ("jit_compile=yes", "'yes' is not true or false"),
    ],
)
def test_what_cannot_be_tuned(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_space([text], CONFIG)


def test_a_flag_is_tuned_once() -> None:
    with pytest.raises(InputError, match=r"--tune has model\.width twice"):
        parse_space(["model.width=8", "model.width=16"], CONFIG)


def test_a_value_that_breaks_a_rule(
    training: FakeTraining, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(
        InputError, match=r"--tune of model\.width: `width` must"
    ):
        _study(tmp_path, space=["model.width=0"]).run(1)
