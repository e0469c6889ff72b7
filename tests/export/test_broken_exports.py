"""`export.verify` says no to ten broken exports, and says why."""

import shutil

import pytest

from tests.commands import assert_refused, run
from tests.export import broken_exports

# What breaks it, and what the one line on stderr must say.
BROKEN = [
    ("renamed_input", "serving_default, input behavior_time is missing"),
    ("float_ids", "input behavior_cate is float32 and must be int64"),
    ("frozen_dims", "has shape [open, 32] and must have [B, L]"),
    ("python_function", "EagerPyFunc calls Python (py_function)"),
    ("doubled_weights", "weights are stored twice"),
    ("wrong_warm_up_dtype", "has int32 for request_time, which must be int64"),
    ("altered_weight", "is none of the Keras model"),
    ("missing_signature", "signature score is missing"),
    ("half_output", "output probability is float16 and must be float32"),
    ("swapped_vocabulary", "differs from the Keras model by"),
]


@pytest.mark.parametrize(("how", "said"), BROKEN, ids=[b for b, _ in BROKEN])
def test_broken_export(how, said, finished_run, tmp_path):
    path = tmp_path / "1"
    shutil.copytree(finished_run.path / "saved_model" / "1", path)
    getattr(broken_exports, how)(path)
    done = run("export.verify", path, cwd=tmp_path)
    assert_refused(done, str(path), said)
