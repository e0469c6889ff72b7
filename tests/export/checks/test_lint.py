"""What `export.checks.lint` finds in a version, and that it finds no more."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from export.graph.signature import EXAMPLES
from export.requests.warm_up import FILE_NAME, write_warm_up
from tests.commands import ROOT
from tests.export.broken_exports import (
    compiled_by_default,
    edit_graph,
    float_ids,
    frozen_dims,
    half_output,
    missing_signature,
    python_function,
    renamed_input,
    wrong_warm_up_dtype,
)

# The C API is for processes without TensorFlow; one of them serves all tests.
_LINT = """
import json, pathlib, sys
from export.checks.lint import lint
from sparsectr.errors import InputError
found = {}
for path in map(pathlib.Path, sys.argv[1:]):
    try:
        found[path.name] = lint(path)
    except InputError as error:
        found[path.name] = str(error)
print(json.dumps(found))
"""


def _nodes(graph, operation):
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == operation:
                yield node


def good(path):
    pass


def unknown_operation(path):
    def change(signatures, graph):
        for node in _nodes(graph, "Sigmoid"):
            node.op = "SigmoidOfTomorrow"

    edit_graph(path, change)


def operation_without_kernel_for_dtype(path):
    def change(signatures, graph):
        for node in _nodes(graph, "Sigmoid"):
            for entry in node.attr:
                if entry.key == "T":
                    entry.value.type = 9  # int64

    edit_graph(path, change)


def more_signatures(path):
    def change(signatures, graph):
        graph.signature_def.add(key="more").value.CopyFrom(signatures["score"])

    edit_graph(path, change)


def renamed_output(path):
    def change(signatures, graph):
        signatures["score"].outputs[0].key = "output_0"

    edit_graph(path, change)


def other_tag(path):
    edit_graph(
        path,
        lambda signatures, graph: graph.meta_info_def.tags.__setitem__(
            0, "train"
        ),
    )


def output_of_nothing(path):
    def change(signatures, graph):
        signatures["score"].outputs[0].value.name = "nowhere:0"

    edit_graph(path, change)


def input_of_nothing(path):
    def change(signatures, graph):
        signatures["score"].inputs[0].value.name = "nowhere:0"

    edit_graph(path, change)


def node_of_nothing(path):
    def change(signatures, graph):
        name = signatures["score"].outputs[0].value.name.partition(":")[0]
        for node in graph.graph_def.node:
            if node.name == name:
                node.input.append("nowhere")
                node.input.append("^nothing")

    edit_graph(path, change)


def function_of_nothing(path):
    def change(signatures, graph):
        name = signatures["score"].outputs[0].value.name.partition(":")[0]
        for node in graph.graph_def.node:
            if node.name == name:
                for entry in node.attr:
                    if entry.key == "f":
                        entry.value.func.name = "nowhere"

    edit_graph(path, change)


def no_warm_up(path):
    (path / "assets.extra" / FILE_NAME).unlink()


def damaged_warm_up(path):
    file = path / "assets.extra" / FILE_NAME
    file.write_bytes(file.read_bytes()[:-1])


def few_records(path):
    records = [
        (EXAMPLES, {"examples": np.array([b""], object)}),
        (EXAMPLES, {"examples": np.array([[b""]], object)}),
        ("other", {"examples": np.array([b""], object)}),
    ]
    write_warm_up(path / "assets.extra" / FILE_NAME, records, "sparsectr")


def too_many_records(path):
    file = path / "assets.extra" / FILE_NAME
    record = (EXAMPLES, {"examples": np.array([b""], object)})
    write_warm_up(file, [record] * 501, "sparsectr")
    file.write_bytes(2 * file.read_bytes())


def other_signature_json(path):
    file = path / "assets.extra" / "signature.json"
    values = json.loads(file.read_text())
    values["signatures"]["score"]["inputs"][0]["dtype"] = "float64"
    file.write_text(json.dumps(values))


def no_signature_json(path):
    (path / "assets.extra" / "signature.json").unlink()


def damaged_schema(path):
    (path / "assets.extra" / "schema.json").write_text("{")


def wrong_buckets(path):
    file = path / "assets.extra" / "signature.json"
    values = json.loads(file.read_text())
    del values["buckets"]["batch_sizes"]
    file.write_text(json.dumps(values))


def no_saved_model(path):
    (path / "saved_model.pb").unlink()


def damaged_saved_model(path):
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-1])


def no_variables(path):
    shutil.rmtree(path / "variables")


BREAKS = {
    break_.__name__: break_
    for break_ in (
        *(good, compiled_by_default, unknown_operation),
        *(operation_without_kernel_for_dtype, more_signatures),
        *(output_of_nothing, input_of_nothing, node_of_nothing),
        function_of_nothing,
        *(renamed_output, other_tag, no_warm_up, damaged_warm_up),
        *(few_records, too_many_records, other_signature_json),
        *(no_signature_json, damaged_schema, wrong_buckets),
        *(no_saved_model, damaged_saved_model, no_variables),
        *(float_ids, frozen_dims, half_output, missing_signature),
        *(python_function, renamed_input, wrong_warm_up_dtype),
    )
}


@pytest.fixture(scope="module")
def found(finished_run, tmp_path_factory):
    """What lint says to each of the broken versions."""
    folder = tmp_path_factory.mktemp("lint")
    for name, break_ in BREAKS.items():
        shutil.copytree(finished_run.path / "saved_model" / "1", folder / name)
        break_(folder / name)
    done = subprocess.run(
        [sys.executable, "-c", _LINT, *(folder / name for name in BREAKS)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_in_a_good_version(found):
    assert found["good"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "compiled_by_default",
            ["signature serving_default must be compiled by XLA"],
        ),
        ("unknown_operation", ["SigmoidOfTomorrow has no CPU kernel (node"]),
        (
            "operation_without_kernel_for_dtype",
            ["operation Sigmoid has no CPU kernel for its dtypes"],
        ),
        (
            "more_signatures",
            [
                "signature more is not in the contract",
                "signature more has no warm-up record",
            ],
        ),
        (
            "renamed_output",
            [
                "score, output probability is missing",
                "score, output output_0 is not in the contract",
            ],
        ),
        *(
            (name, ["signature score needs nowhere, which is not in the graph"])
            for name in (
                *("output_of_nothing", "input_of_nothing"),
                "function_of_nothing",
            )
        ),
        (
            "node_of_nothing",
            [
                "signature score needs nothing, which is not in the graph",
                "signature score needs nowhere, which is not in the graph",
            ],
        ),
        ("no_warm_up", ["there are no warm-up records"]),
        (
            "few_records",
            [
                "signature encode_user has no warm-up record",
                "signature score has no warm-up record",
                "signature serving_default has no warm-up record",
                "warm-up record 1 (serving_examples) has shape [1, 1] for "
                "examples, which must have [open]",
                "warm-up record 2 is for other, no signature",
            ],
        ),
        (
            "other_signature_json",
            ["signature.json is not what schema.json, store.json and config"],
        ),
    ],
)
def test_problems(name, said, found):
    assert len(found[name]) == len(said), found[name]
    for problem, start in zip(found[name], said, strict=True):
        assert start in problem


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("renamed_input", "serving_default, input behavior_time is missing"),
        ("float_ids", "input behavior_cate is float32 and must be int64"),
        ("frozen_dims", "has shape [open, 32] and must have [B, L]"),
        ("python_function", "EagerPyFunc calls Python (py_function)"),
        (
            "wrong_warm_up_dtype",
            "has int32 for request_time, which must be int64",
        ),
        ("missing_signature", "signature score is missing"),
        ("half_output", "output probability is float16 and must be float32"),
    ],
)
def test_first_problem(name, said, found):
    assert said in found[name][0]


def test_too_many_records(found):
    assert "1002 warm-up records, 1000 at most" in found["too_many_records"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other_tag", "has no graph with the tag serve"),
        ("damaged_warm_up", f"{FILE_NAME} is damaged at byte"),
        ("no_signature_json", "has no assets.extra/signature.json"),
        ("damaged_schema", "schema.json is damaged"),
        ("wrong_buckets", "Buckets have"),
        ("no_saved_model", "is not a SavedModel: no saved_model.pb"),
        ("damaged_saved_model", "saved_model.pb is damaged"),
        ("no_variables", "variables cannot be read"),
    ],
)
def test_no_version(name, said, found):
    assert isinstance(found[name], str), found[name]
    assert said in found[name]
    assert f"/{name}" in found[name]
