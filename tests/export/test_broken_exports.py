"""`export.verify` says no to broken exports, and says why.

All that `export.checks.lint` finds is in `checks/test_lint.py`.
"""

import shutil

import pytest

from tests.commands import assert_refused, run
from tests.export import broken_exports

# What breaks it, and what the one line on stderr must say.
BROKEN = [
    ("renamed_input", "serving_default, input behavior_time is missing"),
    ("doubled_weights", "weights are stored twice"),
    ("altered_weight", "is none of the Keras model"),
    ("swapped_vocabulary", "differs from the Keras model by"),
]


@pytest.mark.parametrize(("how", "said"), BROKEN, ids=[b for b, _ in BROKEN])
def test_broken_export(how, said, finished_run, tmp_path):
    path = tmp_path / "1"
    shutil.copytree(finished_run.path / "saved_model" / "1", path)
    getattr(broken_exports, how)(path)
    done = run("export.verify", path, cwd=tmp_path)
    assert_refused(done, str(path), said)
