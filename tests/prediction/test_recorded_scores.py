"""The scores of a split as a table."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipelines.reading.batches import Batches
from sparsectr.config import DataConfig
from sparsectr.metrics import compute_metrics
from sparsectr.prediction.recorded_scores import recorded_scores
from tests.commands import assert_refused
from tests.tiny_run import command, finished_run, tiny_folder, tiny_store

__all__ = ["command", "finished_run", "tiny_folder", "tiny_store"]


def test_evaluate_writes_the_candidates_that_it_measures(
    command, finished_run, tiny_store, tmp_path
):
    path = tmp_path / "test.parquet"
    evaluate = ("sparsectr.evaluate", f"--workdir={finished_run.path}")
    done = command(*evaluate, f"--predictions={path}")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [path]
    result = json.loads(done.stdout.splitlines()[-1])
    found = pq.read_table(path)
    assert found.num_rows == result["num_candidates"]
    logit = found["logit"].to_numpy()
    metrics = compute_metrics(
        found["label"].to_numpy(),
        logit,
        found["user"].to_numpy(),
        found["request"].to_numpy(),
    )
    # Equal, and not close: they are the same logits.
    for name in ("auc", "gauc", "logloss", "calibration"):
        assert getattr(metrics, name) == result[name], name
    np.testing.assert_allclose(
        found["probability"], 1 / (1 + np.exp(-logit)), rtol=1e-6
    )
    logged = {
        row["request"]: row
        for row in pq.read_table(tiny_store.sampled_requests).to_pylist()
    }
    in_file = {}
    for row in found.to_pylist():
        in_file.setdefault(row["request"], []).append(row)
    assert len(in_file) == tiny_store.num_requests("test")
    num_known = 0
    for number, expected in logged.items():
        rows = in_file[number]
        assert {row["time"] for row in rows} == {expected["request_time"]}
        assert [row["label"] for row in rows] == expected["label"]
        for name in ("adgroup_id", "price"):
            column = f"candidate_{name}"
            for row, value in zip(rows, expected[column], strict=True):
                # What was seen too rarely is unknown, and null.
                num_known += row[column] is not None
                assert row[column] in (None, pytest.approx(value))
    assert num_known > 0.5 * sum(len(r["label"]) for r in logged.values())

    none = tmp_path / "none" / "test.parquet"
    done = command(*evaluate, f"--predictions={none}")
    assert_refused(done, f"there is no folder {none.parent}")


def test_nothing_is_left_of_what_failed(tiny_store, tmp_path):
    batches = Batches(tiny_store, "test", DataConfig(), 4, None)
    path = tmp_path / "test.parquet"

    def stop():
        with recorded_scores(np.zeros, path, batches, tiny_store) as predict:
            predict((4, 4))

    with pytest.raises(TypeError):
        stop()
    assert list(tmp_path.iterdir()) == []
