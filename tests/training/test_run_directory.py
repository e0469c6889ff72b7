import json
import math

import pytest

from sparsectr.training.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def test_the_log_has_no_number_that_json_has_not(run):
    run.log(step=1, loss=math.nan, auc=math.inf, seconds=1.5)
    (line,) = (run.path / "metrics.jsonl").read_text().splitlines()
    values = json.loads(line, parse_constant=pytest.fail)
    assert values.pop("time") > 0
    assert values == {"step": 1, "loss": None, "auc": None, "seconds": 1.5}


def test_json_that_is_none_is_not_written(run):
    run.write_json("result.json", {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        run.write_json("result.json", {"auc": math.nan})
    assert run.read_result() == {"auc": 0.5}
    assert [path.name for path in run.path.iterdir()] == ["result.json"]


def test_an_entry_is_added_to_a_result_that_is_there(run):
    run.add_to_result("saved_model", "a")
    assert list(run.path.iterdir()) == []
    run.write_json("result.json", {"auc": 0.5})
    run.add_to_result("saved_model", "a")
    assert run.read_result() == {"auc": 0.5, "saved_model": "a"}
