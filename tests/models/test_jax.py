"""The same model on JAX, in a process of its own."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sparsectr.time_zone import TimeZone
from tests.keras_weights import random_model
from tests.make_requests import SMALL_CONFIG, TIMED_SCHEMA, make_requests

SCHEMA = dataclasses.replace(
    TIMED_SCHEMA, time_zone=TimeZone.named("Europe/Copenhagen")
)

# Times are int64, which JAX has only when asked.
SCRIPT = """
import sys
import keras
import numpy as np
from tests.keras_weights import random_model
from tests.make_requests import SMALL_CONFIG, make_requests
from tests.models.test_jax import SCHEMA
assert keras.backend.backend() == "jax"
model = random_model(SCHEMA, SMALL_CONFIG, 1)
logits = model(make_requests(2, [7, 0, 1, 6], length=7)).logits
np.save(sys.argv[1], np.asarray(logits))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
def test_logits_equal_those_of_tensorflow(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "logits.npy"
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        cwd=repository,
        env=environment,
        check=True,
    )
    model = random_model(SCHEMA, SMALL_CONFIG, 1)
    logits = model(make_requests(2, [7, 0, 1, 6], length=7)).logits.numpy()
    np.testing.assert_allclose(np.load(path), logits, rtol=1e-4, atol=1e-5)
