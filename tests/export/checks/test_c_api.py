"""A SavedModel through the C API, in a process without TensorFlow."""

import subprocess
import sys

import pytest
import tensorflow as tf

from export.checks.c_api import SavedModelSession

# Begins every process of these tests: it never imports TensorFlow.
_PRELUDE = """
import sys
import numpy as np
from export.checks.c_api import (
    SavedModelSession, read_checkpoint, registered_kernels,
)
from sparsectr.errors import InputError
path = sys.argv[1]
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c_api")
    words = folder / "words.txt"
    words.write_text("red\ngreen\n")
    module = tf.Module()
    module.scale = tf.Variable([2.0, 3.0])
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(words),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        ),
        -1,
    )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="word"),
            tf.TensorSpec([None, 2], tf.float32, name="value"),
            tf.TensorSpec([], tf.int64, name="count"),
            tf.TensorSpec([None], tf.bool, name="flag"),
        ]
    )
    def serve(word, value, count, flag):
        return {
            "place": module.table.lookup(word),
            "twice": tf.strings.join([word, word]),
            "scaled": value * module.scale + tf.cast(count, tf.float32),
            "not": tf.logical_not(flag),
        }

    saved = folder / "model"
    tf.saved_model.save(module, str(saved), {"serving_default": serve})
    return saved


@pytest.fixture(scope="module")
def python(path, repository):
    """Runs code, gives its output."""

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", _PRELUDE + code, str(path)],
            check=False,
            capture_output=True,
            text=True,
            cwd=repository,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


_INPUTS = """
inputs = {
    "word": np.array(["green", "blau-gr\\u00fcn" * 9, ""], object),
    "value": np.array([[1, 2], [3, 4], [5, 6]], np.float32)[:, ::-1],
    "count": np.array(1),
    "flag": np.array([True, False]),
}
session = SavedModelSession(path)
"""


def test_runs_every_dtype(python):
    lines = python(
        _INPUTS
        + """
answer = session.run("serving_default", inputs)
print("tensorflow" in sys.modules)
for name in sorted(answer):
    value = answer[name]
    print(name, value.dtype, value.tolist())
session.close()
"""
    )
    twice = ["greengreen", "blau-grün" * 18, ""]
    assert lines == [
        "False",
        "not bool [False, True]",
        "place int64 [1, -1, -1]",
        "scaled float32 [[5.0, 4.0], [9.0, 10.0], [13.0, 16.0]]",
        f"twice object {[text.encode() for text in twice]}",
    ]


def test_no_rows(python):
    lines = python(
        _INPUTS
        + """
empty = {k: v[:0] if v.ndim else v for k, v in inputs.items()}
answer = session.run("serving_default", empty)
print(sorted((name, value.shape) for name, value in answer.items()))
"""
    )
    assert lines == [
        "[('not', (0,)), ('place', (0,)), ('scaled', (0, 2)), ('twice', (0,))]"
    ]


def test_signatures(python):
    lines = python(
        """
with SavedModelSession(path) as session:
    signature = session.signatures["serving_default"]
    for name, info in sorted(signature.inputs.items()):
        print(name, info.dtype, info.shape)
    operations = session.operations()
    print(sorted(session.signatures), "LookupTableFindV2" in operations)
try:
    session.run("serving_default", {})
except ValueError as error:
    print(str(error).endswith("is closed."))
"""
    )
    assert lines == [
        "count int64 ()",
        "flag bool (None,)",
        "value float32 (None, 2)",
        "word string (None,)",
        "['serving_default'] True",
        "True",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("del inputs['flag']", "missing input flag"),
        ("inputs['more'] = 1", "unknown input more"),
        (
            "inputs['count'] = np.array(1, np.int32)",
            "count: is int32 and must be int64",
        ),
        ("inputs['value'] = np.zeros([3, 5], np.float32)", "Incompatible"),
        ("inputs['word'] = np.array([None])", "Not a text: None"),
    ],
)
def test_wrong_inputs(change, message, python):
    (line,) = python(
        f"{_INPUTS}\n{change}\n"
        """
try:
    session.run("serving_default", inputs)
except InputError as error:
    print(error)
"""
    )
    assert message in line


def test_other_signature_and_no_model(python):
    lines = python(
        """
for folder, name in ((path, "score"), (path + "/variables", "score")):
    try:
        SavedModelSession(folder).run(name, {})
    except InputError as error:
        print(error)
"""
    )
    assert len(lines) == 2
    assert lines[0].endswith("has no signature score.")
    assert "variables cannot be loaded: Could not find SavedModel" in lines[1]


def test_kernels_are_those_of_the_library(python):
    lines = python(
        """
for name in ("MatMul", "EagerPyFunc"):
    kernels = registered_kernels(name)
    print(name, any(k.device_type == "CPU" for k in kernels))
"""
    )
    assert lines == ["MatMul True", "EagerPyFunc False"]


def test_checkpoint(python):
    lines = python(
        """
print([v.tolist() for n, v in read_checkpoint(path + "/variables/variables")
       if n.startswith("scale")])
try:
    list(read_checkpoint(path + "/nothing"))
except InputError as error:
    print("nothing cannot be read" in str(error))
"""
    )
    assert lines == ["[[2.0, 3.0]]", "True"]


def test_strings_are_freed(python):
    (line,) = python(
        """
import resource
inputs = {
    "word": np.array(["x" * 1_000_000] * 10, object),
    "value": np.zeros([0, 2], np.float32),
    "count": np.array(1),
    "flag": np.array([True]),
}
session = SavedModelSession(path)
held = []
for _ in range(40):
    session.run("serving_default", inputs)
    held.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(held[-1] - held[9])
"""
    )
    # 30 calls with 10 MB each; in KiB.
    assert int(line) < 60_000


def test_refused_where_tensorflow_is_imported(path):
    with pytest.raises(RuntimeError, match="has imported TensorFlow"):
        SavedModelSession(path)
