"""The commands from start to end, each as its user calls it."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.config import Config
from tests.commands import run
from tests.tiny_run import CONFIG, FINISHED_FLAGS, change, logged

RESULT_KEYS = {
    "model",
    "seed",
    "step",
    "split_rule",
    "floors",
    "dataset",
    "data_source",
    "split",
    "metrics",
    "num_parameters",
    "num_workers",
    "train_seconds",
    "compile_seconds",
    "requests_per_second",
    "peak_memory_bytes",
    "saved_model",
    "weights",
}
METRIC_KEYS = {
    "auc",
    "auc_standard_error",
    "gauc",
    "gauc_by_request",
    "logloss",
    "normalized_entropy",
    "calibration",
    "num_candidates",
    "num_groups_skipped",
    "num_requests_counted",
    "num_requests_skipped",
    "is_weighted",
}
FLOORS = ("item_mean", "user_mean", "user_recent_mean", "item_and_user_means")
METRICS_LINE = re.compile(
    r"^\[Metrics\] AUC: (0\.\d{6}) - GAUC: 0\.\d{6} - logloss: \d+\.\d{6}$",
    re.MULTILINE,
)

EXPECTED_CONFIG = change(
    change(CONFIG, "train", epochs=2),
    "model",
    num_blocks=1,
    dropout_rate=0.25,
)


@pytest.fixture(scope="module")
def result(finished_run):
    return finished_run.run.read_result()


def test_says_synthetic_wherever_numbers_are(finished_run, result):
    assert "SYNTHETIC" in finished_run.stderr
    assert "tianchi.aliyun.com" in finished_run.stderr
    assert "(synthetic sample)" in finished_run.stdout
    assert result["data_source"]["kind"] == "synthetic sample"


def test_prints_metrics_and_model(finished_run, result):
    (auc,) = METRICS_LINE.findall(finished_run.stdout)
    assert auc == f"{result['metrics']['auc']:.6f}"
    assert finished_run.stdout.endswith(
        f"SavedModel: {result['saved_model']}\n"
    )
    assert "54/54" in finished_run.stderr
    assert ", loss 0." in finished_run.stderr
    assert ", AUC 0." in finished_run.stderr


def test_result(result, tiny_store, finished_run):
    assert set(result) == RESULT_KEYS
    assert set(result["metrics"]) == METRIC_KEYS
    assert set(result["num_parameters"]) == {"dense", "embedding"}
    assert result["split_rule"] == tiny_store.manifest["split"]
    assert result["dataset"] == "alibaba"
    assert (result["model"], result["seed"]) == ("sparse_ctr", 0)
    assert (result["step"], result["split"]) == (54, "test")
    assert result["data_source"]["content"] == tiny_store.manifest["content"]
    assert sorted(result["floors"]) == sorted(FLOORS)
    for value in result["floors"].values():
        assert 0.0 < value < 1.0
    for source in result["data_source"]["files"]:
        assert source["bytes"] > 0
    counts = tiny_store.manifest["counts"]
    assert result["metrics"]["num_candidates"] == counts["test"]["candidates"]
    rows = sum(table.size for table in tiny_store.schema.tables)
    assert result["num_parameters"]["embedding"] == rows * 4
    assert result["num_parameters"]["dense"] > 0
    for name in ("train_seconds", "requests_per_second", "peak_memory_bytes"):
        assert result[name] > 0
    # Relative to the working directory of the command, as it was given.
    assert result["saved_model"] == "finished/run/saved_model/1"
    assert (finished_run.path / "saved_model" / "1").is_dir()


def test_config_and_schema_are_those_of_the_run(finished_run, tiny_store):
    config, data_dir = finished_run.run.read_config()
    assert config == EXPECTED_CONFIG
    assert data_dir == str(tiny_store.path)
    assert finished_run.run.read_schema() == tiny_store.schema


def test_environment(finished_run):
    values = json.loads((finished_run.path / "environment.json").read_text())
    assert values["tensorflow"] == tf.__version__
    assert values["numpy"] == np.__version__
    assert {"python", "keras", "processor", "gpus", "commit"} <= set(values)


def test_log_has_every_step_and_the_metrics(finished_run, result):
    *steps, last = logged(finished_run.path)
    assert [line["step"] for line in steps] == list(range(1, 55))
    for line in steps:
        assert set(line) == {
            "time",
            "step",
            "loss",
            "running_auc",
            "learning_rate",
            "embedding_learning_rate",
            "seconds",
            "compile_seconds",
        }
        assert np.isfinite(line["loss"])
        assert 0.0 <= line["running_auc"] <= 1.0
    assert last.pop("step") == 54
    last.pop("time")
    assert last == result["metrics"]


def test_tensorboard_has_every_step(finished_run):
    files = (finished_run.path / "tensorboard").glob("events.out.*")
    steps = {
        (value.tag, event.step)
        for event in map(
            tf.compat.v1.Event.FromString,
            tf.data.TFRecordDataset([*map(str, files)]).as_numpy_iterator(),
        )
        for value in event.summary.value
    }
    names = ("loss", "running_auc", "learning_rate", "embedding_learning_rate")
    assert steps == {
        (f"train/{name}", step) for name in names for step in range(1, 55)
    }


def test_nothing_else_is_left(finished_run):
    assert {path.name for path in finished_run.path.iterdir()} == {
        "config.json",
        "schema.json",
        "store.json",
        "environment.json",
        "lock",
        "checkpoints",
        "tensorboard",
        "metrics.jsonl",
        "result.json",
        "saved_model",
    }
    # The two newest alone.
    kept = {path.stem for path in finished_run.path.glob("checkpoints/*.index")}
    assert kept == {"ckpt-52", "ckpt-54"}


def test_evaluate_gives_the_same_metrics(finished_run, result, command):
    done = command(
        "sparsectr.evaluate",
        f"--workdir={finished_run.path}",
        "--base_auc=0.55",
        "--gauc_weighting=none",
    )
    assert done.returncode == 0, done.stderr
    *lines, values = done.stdout.splitlines()
    (printed,) = METRICS_LINE.findall(finished_run.stdout)
    assert METRICS_LINE.findall("\n".join(lines)) == [printed]
    found = json.loads(values)
    assert (found["split"], found["history"]) == ("test", "as it was")
    assert found["checkpoint"] == "last"
    assert found["floors"] == result["floors"]
    assert found["step"] == 54
    assert found["weights"] == result["weights"] == "last"
    assert {key: found[key] for key in METRIC_KEYS} == pytest.approx(
        result["metrics"], rel=1e-6
    )
    assert 0.0 < found["gauc_none"] < 1.0
    assert 0.0 < found["gauc_by_request_none"] < 1.0
    auc = result["metrics"]["auc"]
    assert found["rela_impr"] == pytest.approx((auc - 0.5) / (0.55 - 0.5) - 1)


def test_evaluate_with_frozen_histories(
    finished_run, result, command, tmp_path
):
    # A copy: the result gets one more entry.
    path = tmp_path / "run"
    shutil.copytree(finished_run.path, path)
    done = command(
        "sparsectr.evaluate", f"--workdir={path}", "--frozen_history"
    )
    assert done.returncode == 0, done.stderr
    # Not to be taken for the metrics with the histories as they were.
    assert METRICS_LINE.findall(done.stdout) == []
    assert done.stdout.startswith("[Metrics, frozen history] AUC: 0.")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["history"] == "frozen"
    # The histories grow within the test, and so the scores change.
    assert found["gauc"] != pytest.approx(result["metrics"]["gauc"], abs=1e-6)
    kept = json.loads((path / "result.json").read_text())
    frozen = kept.pop("metrics_frozen_history")
    assert kept == result
    assert frozen == {key: found[key] for key in METRIC_KEYS}


def test_evaluate_says_why_there_is_no_number(
    finished_run, tiny_store, command, tmp_path
):
    # As many requests, but nobody clicks.
    store = tmp_path / "store"
    shutil.copytree(tiny_store.path, store)
    for path in store.glob("shard-*/test/candidate_label.npy"):
        np.save(path, np.zeros_like(np.load(path)))
    done = command(
        "sparsectr.evaluate",
        f"--workdir={finished_run.path}",
        f"--data_dir={store}",
        "--base_auc=0.6",
        "--gauc_weighting=positives",
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.splitlines()[-1]
    assert "NaN" not in text
    found = json.loads(text)
    undefined = {name for name, value in found.items() if value is None}
    assert {"auc", "gauc", "gauc_positives", "rela_impr"} <= undefined
    assert set(found["undefined"]) == undefined
    assert found["floors"] == dict.fromkeys(FLOORS)


def test_print_config_needs_no_tensorflow(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = None\n"  # an import of it raises
        "sys.modules['keras'] = None\n"
        f"sys.argv = ['train', *{[*FINISHED_FLAGS, '--print_config']!r}]\n"
        "runpy.run_module('sparsectr.train', run_name='__main__')\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = run("program", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Config.from_dict(json.loads(done.stdout)) == EXPECTED_CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("sparsectr.train", "--model.num_chunks"),
        ("sparsectr.evaluate", "--gauc_weighting"),
        ("sparsectr.compare", "--json"),
        ("export.saved_model", "--output"),
        ("export.verify", "--data_dir"),
    ],
)
def test_help(module, flag, command):
    done = command(module, "--help")
    assert done.returncode == 0
    assert flag in done.stdout
    assert f"python -m {module}" in done.stdout
