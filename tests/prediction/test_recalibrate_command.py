"""The command that recalibrates a run, and what is computed from then on."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from sparsectr.calibration import Calibration
from sparsectr.training.run_directory import RunDirectory
from tests.commands import assert_refused
from tests.tiny_run import command, finished_run, tiny_folder, tiny_store

__all__ = ["command", "finished_run", "tiny_folder", "tiny_store"]

SIGNATURE = "assets.extra/signature.json"


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A copy of a run, to be changed."""
    path = tmp_path_factory.mktemp("runs") / "run"
    return shutil.copytree(finished_run.path, path)


def succeed(command, *arguments):
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_and_version_give_calibrated_scores(
    command, run, tiny_store, tmp_path
):
    requests = f"--input={tiny_store.sampled_requests}"

    def scores(name, model):
        output = tmp_path / f"{name}.parquet"
        succeed(
            command, "sparsectr.predict", model, requests, f"--output={output}"
        )
        lists = pq.read_table(output)["probability"].to_pylist()
        return np.concatenate(lists).astype(np.float64)

    before = scores("before", f"--workdir={run}")
    printed = succeed(
        command, "sparsectr.recalibrate", f"--workdir={run}", "--split=test"
    )
    fitted = Calibration.from_json((run / "calibration.json").read_text(), "")
    assert fitted.method == "isotonic"
    assert len(fitted.logits) >= 2
    mean, loss = re.findall(r" on test: (.*) before, (.*) after,", printed)
    assert float(mean[1]) == pytest.approx(1, abs=0.02)
    assert float(loss[1]) < float(loss[0])

    logits = fitted(np.log(before / (1 - before)))
    expected = 1 / (1 + np.exp(-logits))
    assert np.abs(expected - before).max() > 1e-3
    after = scores("after", f"--workdir={run}")
    np.testing.assert_allclose(after, expected, rtol=0, atol=2e-6)
    # It verifies itself, state and all.
    models = run / "saved_model"
    printed = succeed(
        command,
        "export.saved_model",
        f"--workdir={run}",
        f"--output={models}",
    )
    assert printed.endswith(f"SavedModel: {models / '2'}\n")
    assert {version.name for version in models.iterdir()} == {"1", "2"}
    result = RunDirectory(run).read_result()
    assert result["saved_model"] == str(models / "2")
    served = scores("served", f"--model={models / '2'}")
    np.testing.assert_allclose(served, after, rtol=0, atol=1e-6)
    extra = models / "2" / "assets.extra"
    text = (extra / "calibration.json").read_text()
    assert Calibration.from_json(text, "") == fitted
    # The same weights have the same states, whoever exports them.
    before, now = (
        json.loads((models / version / SIGNATURE).read_text())["fingerprint"]
        for version in ("1", "2")
    )
    assert now == before


def test_what_was_trained_on_is_refused(command, run):
    done = command("sparsectr.recalibrate", f"--workdir={run}")
    assert_refused(done, "has trained on the validation", "--split=test")


def test_other_weights_are_refused(command, run, tmp_path):
    values = {
        "method": "platt",
        "step": 1,
        "logits": [0.0],
        "calibrated": [0.0],
        "outer_slope": 1.0,
    }
    (run / "calibration.json").write_text(json.dumps(values))
    done = command(
        "sparsectr.predict",
        f"--workdir={run}",
        f"--input={run}",
        f"--output={tmp_path / 'a.parquet'}",
    )
    assert_refused(done, "calibration.json is for the weights of step 1")
