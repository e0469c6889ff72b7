"""Runs of `--validation`: what they choose, and that stops change nothing."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.store import Store
from data_pipelines.stores.unseen_ids import unseen_before_validation
from sparsectr.config import Config
from sparsectr.config_flags import flags_of
from sparsectr.errors import InputError
from sparsectr.metrics import Metrics
from sparsectr.training import run as run_module
from sparsectr.training import trainer as trainer_module
from sparsectr.training.devices import make_strategy
from sparsectr.training.load_model import load_model
from sparsectr.training.run import train_and_evaluate
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from sparsectr.training.validation import (
    Validation,
    best_of,
    check_parts,
    evaluations_in,
    final_run,
)
from tests.test_config_flags import config_of
from tests.tiny_run import CONFIG, change, logged, make_trainer, saved_state

CHEAP = change(
    dataclasses.replace(CONFIG, model=MeanPoolingRecipe(embedding_dim=4)),
    "train",
    validation=True,
    validate_every=3,
    max_steps=14,
    log_every=2,
    checkpoint_every=4,
    learning_rate=0.05,
)
"""Evaluations after 3, 6, 9, 12 and 14 steps."""

DUE = [3, 6, 9, 12, 14]


def _metrics(auc: float) -> Metrics:
    return Metrics(
        auc=auc,
        auc_standard_error=0.01,
        gauc=0.5,
        gauc_by_request=0.5,
        logloss=0.25,
        normalized_entropy=0.9,
        calibration=1.0,
        num_candidates=9,
        num_groups_skipped=2,
        num_requests_counted=3,
        num_requests_skipped=1,
    )


def _validation(*aucs: float, patience: int = 0) -> Validation:
    found = Validation(every=2, num_steps=99, patience=patience)
    for number, auc in enumerate(aucs, 1):
        found.add(2 * number, _metrics(auc))
    return found


def test_the_first_of_the_best_is_the_best() -> None:
    assert _validation().best is None
    best = _validation(0.5, 0.7, 0.6, 0.7).best
    assert best is not None
    assert best.step == 4


@pytest.mark.parametrize(
    ("aucs", "patience", "is_over"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),  # as good is not better
        ([0.5, 0.6], 1, False),
        ([0.5, 0.4, 0.6, 0.5], 2, False),
        ([0.5, 0.4, 0.6, 0.5, 0.59], 2, True),
        ([0.5, 0.4, 0.3, 0.2], 0, False),
    ],
)
def test_patience(aucs: list[float], patience: int, is_over: bool) -> None:
    assert _validation(*aucs, patience=patience).is_over == is_over


def test_the_last_step_is_due_too() -> None:
    found = Validation(every=3, num_steps=14, patience=0)
    assert [step for step in range(1, 15) if found.is_due(step)] == DUE


def _line(step: int, auc: float | None) -> dict[str, Any]:
    metrics = dataclasses.replace(_metrics(0.5), gauc=float("nan")).to_dict()
    return {"step": step, "split": "validation", **metrics, "auc": auc}


def test_restores_from_the_log() -> None:
    lines = [{"step": 2, "loss": 1.0}, _line(2, 0.7), _line(4, 0.6)]
    found = _validation(patience=1)
    found.restore(lines, 5)
    assert found.is_over
    assert found.best is not None
    assert found.best.step == 2
    assert math.isnan(found.best.metrics.gauc)
    assert found.best.metrics.num_candidates == 9


def test_a_log_without_an_evaluation_is_refused() -> None:
    with pytest.raises(InputError, match="lacks evaluations of the 6 steps"):
        _validation().restore([_line(2, 0.7), _line(4, 0.6)], 6)


def _store(tmp_path: pathlib.Path, older: int, *newer: int) -> Store:
    names = ("requests", "candidates", "positives")

    class Made(Store):
        def __init__(self) -> None:
            self.path = tmp_path
            self.manifest = {
                "split": {"validation_time": 5},
                "counts": {
                    "train_older": {"requests": older},
                    "validation": dict(zip(names, newer, strict=True)),
                },
            }

    return Made()


@pytest.mark.parametrize(
    "counts", [(0, 3, 6, 2), (7, 0, 0, 0), (7, 3, 6, 0), (7, 3, 6, 6)]
)
def test_parts_that_cannot_choose(
    counts: tuple[int, ...], tmp_path: pathlib.Path
) -> None:
    check_parts(_store(tmp_path, 7, 3, 6, 2))
    message = f"{counts[0]} requests come before .* and has {counts[1]} with"
    with pytest.raises(InputError, match=message):
        check_parts(_store(tmp_path, *counts))


def test_final_run_is_the_run_but_for_its_end() -> None:
    chosen = ("--learning_rate=0.003", "--nojit_compile", "--model.num_heads=2")
    config = config_of(
        "--dataset=alibaba",
        *chosen,
        "--validation",
        "--validate_every=7",
        "--patience=3",
        "--epochs=4",
        "--max_steps=1000",
    )
    found = final_run(
        config,
        "data/store",
        best_step=41,
        num_requests=1000,
        num_requests_older=900,
        num_batches=20,
    )
    assert found["max_steps"] == 46  # 45.6
    *flags, data_dir = found["flags"]
    assert data_dir == "--data_dir=data/store"
    # 46 steps are more than two epochs of 20.
    assert config_of(*flags) == config_of(
        "--dataset=alibaba", *chosen, "--max_steps=46", "--epochs=3"
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("--dataset=alibaba",),
        ("--dataset=movielens", "--model.name=mean_pooling", "--seed=4"),
        ("--dataset=alibaba", "--data.length_buckets=7,9", "--mixed_precision"),
    ],
)
def test_flags_make_the_configuration_again(flags: tuple[str, ...]) -> None:
    assert sorted(flags_of(config_of(*flags))) == sorted(flags)


# Runs of a few steps, in this process.


def _without_times(path: pathlib.Path) -> list[dict[str, Any]]:
    lines = logged(path)
    for line in lines:
        del line["time"]
        del line["seconds"]
        line.pop("compile_seconds", None)
    return lines


def _assert_same_run(path: pathlib.Path, expected: pathlib.Path) -> None:
    assert _without_times(path) == _without_times(expected)
    for folder in ("checkpoints", "checkpoints/best"):
        found = saved_state(path, folder)
        whole = saved_state(expected, folder)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            # Counts how often there was a copy, which nothing reads.
            if not name.startswith("save_counter"):
                np.testing.assert_array_equal(found[name], value, name)
    names = {
        "/".join(file.relative_to(path).parts)
        for file in path.glob("checkpoints/**/*")
    }
    assert names == {
        "/".join(file.relative_to(expected).parts)
        for file in expected.glob("checkpoints/**/*")
    }


@pytest.fixture(scope="module")
def unbroken(
    tiny_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, Trainer]:
    path = tmp_path_factory.mktemp("unbroken") / "run"
    trainer = make_trainer(CHEAP, tiny_store, path)
    trainer.train()
    return path, trainer


def test_evaluates_where_it_is_due(
    unbroken: tuple[pathlib.Path, Trainer], tiny_store: Store
) -> None:
    path, trainer = unbroken
    counts = tiny_store.manifest["counts"]
    assert trainer.batches.num_requests == counts["train_older"]["requests"]
    found = evaluations_in(logged(path))
    assert [each.step for each in found] == DUE
    for each in found:
        number = counts["validation"]["candidates"]
        assert each.metrics.num_candidates == number
    assert len({each.metrics.auc for each in found}) == len(DUE)
    best = best_of(found)
    assert trainer.validation is not None
    assert trainer.validation.best == best
    assert best is not None
    # Otherwise the best would be one of the newest.
    assert best.step < 12
    files = {file.name for file in (path / "checkpoints" / "best").iterdir()}
    assert f"ckpt-{best.step}.index" in files
    assert len([name for name in files if name.endswith(".index")]) == 1


def test_the_best_is_what_is_loaded(
    unbroken: tuple[pathlib.Path, Trainer], tiny_store: Store
) -> None:
    path, trainer = unbroken
    trained = load_model(RunDirectory(path))
    assert trained.checkpoint == "best"
    assert trainer.validation is not None
    best = trainer.validation.best
    assert best is not None
    assert trained.step == best.step
    again = Trainer(CHEAP, tiny_store, RunDirectory(path), make_strategy(1))
    again.model.set_weights(trained.model.get_weights())
    assert again.evaluate("validation") == best.metrics


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_what_only_the_validation_has_is_out_of_vocabulary(
    ema_decay: float, tiny_store: Store, tmp_path: pathlib.Path
) -> None:
    config = change(CHEAP, "train", ema_decay=ema_decay)
    trainer = make_trainer(config, tiny_store, tmp_path)
    before = {v.path: v.numpy() for v in trainer.model.trainable_variables}
    trainer.train()
    unseen = unseen_before_validation(tiny_store)
    assert any(map(len, unseen.values()))
    weights = load_model(RunDirectory(tmp_path)).model.trainable_variables
    for variable in weights:
        _, _, table = variable.path.removesuffix("/rows").rpartition("table_")
        rows, first = variable.numpy(), before[variable.path]
        if len(ids := unseen.get(table, ())):
            np.testing.assert_allclose(
                rows[ids], np.tile(rows[1], (len(ids), 1)), rtol=1e-6
            )
            seen = np.setdiff1d(np.arange(len(rows)), ids)
            assert not (rows[seen[2:]] == rows[1]).all(axis=1).any()
            assert not (first[ids] == first[1]).any()


class _StopError(Exception):
    """Where a run is stopped."""


def _stop(
    monkeypatch: pytest.MonkeyPatch, trainer: Trainer, moment: str, step: int
) -> None:
    """Lets a run stop at a moment of a step."""
    what, _, when = moment.partition(" ")
    original = getattr(trainer._checkpointing, what)

    def stopping(done: int) -> None:
        if done == step and when == "before":
            raise _StopError
        original(done)
        if done == step:
            raise _StopError

    monkeypatch.setattr(trainer._checkpointing, what, stopping)


BEST = 0
"""Stands for the step of the best evaluation."""


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("save before", BEST),  # its evaluation is in the log
        ("save_best before", BEST),
        ("save_best after", BEST),
        ("save after", 8),  # between evaluations
        ("save after", 14),
    ],
)
def test_a_stop_changes_nothing(
    moment: str,
    step: int,
    unbroken: tuple[pathlib.Path, Trainer],
    tiny_store: Store,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, whole = unbroken
    assert whole.validation is not None
    assert whole.validation.best is not None
    trainer = make_trainer(CHEAP, tiny_store, tmp_path / "run")
    step = step or whole.validation.best.step
    _stop(monkeypatch, trainer, moment, step)
    with pytest.raises(_StopError):
        trainer.train()
    # What a stopped run is asked for is there.
    if trainer._checkpointing.newest_step:
        load_model(RunDirectory(tmp_path / "run"))
    # Without a checkpoint it begins anew, as the command does.
    keras.utils.set_random_seed(CHEAP.train.seed)
    resumed = Trainer(
        CHEAP, tiny_store, RunDirectory(tmp_path / "run"), make_strategy(1)
    )
    resumed.train(resume=True)
    assert resumed.validation is not None
    assert resumed.validation.best == whole.validation.best
    assert resumed.num_steps_done == 14
    _assert_same_run(tmp_path / "run", expected)


def test_stops_early_and_stays_stopped(
    unbroken: tuple[pathlib.Path, Trainer],
    tiny_store: Store,
    tmp_path: pathlib.Path,
) -> None:
    path, _ = unbroken
    aucs = [each.metrics.auc for each in evaluations_in(logged(path))]
    # What the patience makes of the same evaluations.
    patience = 1
    until = next(
        number
        for number in range(1, len(aucs) + 1)
        if _validation(*aucs[:number], patience=patience).is_over
    )
    config = change(CHEAP, "train", patience=patience)
    trainer = make_trainer(config, tiny_store, tmp_path / "run")
    trainer.train()
    assert trainer.num_steps_done == DUE[until - 1] < 14
    before = _without_times(tmp_path / "run")
    evaluations = evaluations_in(before)
    assert [each.metrics.auc for each in evaluations] == aucs[:until]
    again = Trainer(
        config, tiny_store, RunDirectory(tmp_path / "run"), make_strategy(1)
    )
    again.train(resume=True)
    assert again.num_steps_done == trainer.num_steps_done
    assert _without_times(tmp_path / "run") == before


def _run(
    config: Config, store: Store, path: pathlib.Path
) -> tuple[Metrics, dict[str, Any]]:
    run = RunDirectory(path)
    metrics = train_and_evaluate(config, store.path, run, resume=False)
    return metrics, run.read_result()


@pytest.fixture
def parts_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of the store that a run opens."""
    found = []

    class Recording(Batches):
        def __init__(
            self, store: Store, part: str, *rest: Any, **named: Any
        ) -> None:
            found.append(part)
            super().__init__(store, part, *rest, **named)

    monkeypatch.setattr(trainer_module, "Batches", Recording)
    monkeypatch.setattr(run_module, "Batches", Recording)
    return found


def test_the_test_is_never_read(
    parts_read: list[str],
    tiny_store: Store,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = change(CHEAP, "train", max_steps=4)
    metrics, result = _run(config, tiny_store, tmp_path / "run")
    # The order of all before the test, for the length of the final run.
    assert parts_read == ["train_older", "validation", "train"]
    assert result["split"] == "validation"
    assert result["metrics"] == metrics.to_dict()
    found = best_of(evaluations_in(logged(tmp_path / "run")))
    assert found is not None
    assert found.metrics == metrics
    assert result["best_step"] == found.step
    assert result["num_steps"] == 4
    printed = capsys.readouterr().out
    assert metrics.log_lines() in printed
    for flag in result["final_run"]["flags"]:
        assert flag in printed
    lines = [json.dumps(line) for line in logged(tmp_path / "run")]
    assert len(lines) == len(set(lines))


def test_without_validation_all_before_the_test_is_trained_on(
    parts_read: list[str], tiny_store: Store, tmp_path: pathlib.Path
) -> None:
    config = change(
        CHEAP, "train", validation=False, validate_every=0, max_steps=2
    )
    _, result = _run(config, tiny_store, tmp_path / "run")
    assert parts_read == ["train", "test"]
    assert result["split"] == "test"
    assert "final_run" not in result
    assert load_model(RunDirectory(tmp_path / "run")).checkpoint == "last"
