"""The SavedModel as a server sees it: its inputs, its answers, its files.

What section 1 of the specification says must never be true is tested here
on the exported model itself.
"""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.graph.serving_graph import ServingGraph, model_fingerprint
from export.graph.signature import state_tensors
from export.requests.warm_up import write_warm_up
from sparsectr.prediction.raw_ids import RawIds
from sparsectr.time_zone import TimeZone
from tests.export.exported_model import (
    CONFIG,
    MAX_HISTORY,
    SCHEMA,
    VOCABULARIES,
    XLA_BUCKET,
    exported,
    requests,
)
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import WEEK, pad_left, subset

__all__ = ["exported"]

NUM_VALID = [29, 0, 3, 11]
TOLERANCE = 1e-6

USER = {
    "user_age": ("int64", [None]),
    "user_city": ("string", [None]),
    "user_gender": ("string", [None]),
    "user_likes": ("int64", [None, 2]),
    "user_spend": ("float32", [None]),
    "behavior_item": ("int64", [None, None]),
    "behavior_brand": ("string", [None, None]),
    "behavior_tags": ("int64", [None, None, 7]),
    "behavior_watched": ("float32", [None, None]),
    "behavior_time": ("int64", [None, None]),
}
CANDIDATES = {
    "request_time": ("int64", [None]),
    "candidate_brand": ("string", [None, None]),
    "candidate_item": ("int64", [None, None]),
    "candidate_place": ("int64", [None, None]),
    "candidate_tags": ("int64", [None, None, 3]),
    "candidate_price": ("float32", [None, None]),
}
STATE = {
    "state_keys": ("float32", [None, 2, 12, 10]),
    "state_values": ("float32", [None, 2, 12, 10]),
    "state_key_time": ("int64", [None, 11]),
    "state_key_has_fraction": ("bool", [None, 11]),
    "state_key_position": ("int32", [None, 11]),
    "state_key_mask": ("bool", [None, 12]),
    "state_user": ("float32", [None, 4 * 3 + 1]),
    "state_fingerprint": ("int64", [None]),
}


@pytest.fixture(scope="module")
def both():
    return requests(3, NUM_VALID)


@pytest.fixture(scope="module")
def raw(both):
    return both[1]


@pytest.fixture(scope="module")
def answer(exported, raw):
    return exported.probability(raw)


def _specs(specs):
    return {
        name: (spec.dtype.name, spec.shape.as_list())
        for name, spec in specs.items()
    }


def _fixed(specs):
    sizes = dict(
        zip(("user", "behavior", "candidate"), XLA_BUCKET, strict=True)
    )
    batch = XLA_BUCKET[0]
    return {
        # The size of a set is fixed as it is.
        name: (
            dtype,
            [batch, *(n or sizes[name.split("_")[0]] for n in shape[1:])],
        )
        for name, (dtype, shape) in specs.items()
    }


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("serving_default", {**USER, **CANDIDATES}, None),
        ("encode_user", USER, STATE),
        ("score", {**STATE, **CANDIDATES}, None),
        ("serving_examples", {"examples": ("string", [None])}, None),
        ("serving_xla_b4_l31_c5", _fixed({**USER, **CANDIDATES}), None),
    ],
)
def test_signature(name, inputs, outputs, exported):
    # A server sends by these names: written out, not derived.
    signature = exported.loaded.signatures[name]
    assert _specs(signature.structured_input_signature[1]) == inputs
    found = signature.structured_outputs
    if outputs is None:
        assert list(found) == ["probability"]
        assert found["probability"].dtype == tf.float32
        assert found["probability"].shape.rank == 2
    else:
        assert _specs(found) == outputs


def test_no_other_signature(exported):
    assert len(exported.loaded.signatures) == 5


def test_equals_the_keras_model(exported, both, answer):
    ids, raw = both
    expected = exported.expected(ids)
    np.testing.assert_allclose(answer, expected, atol=TOLERANCE)
    found = exported.score(exported.encode(raw), raw)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_compiled_signature_equals_the_keras_model(exported, both):
    ids, raw = both
    found = exported.probability(pad_left_raw(raw, 2), "serving_xla_b4_l31_c5")
    np.testing.assert_allclose(found, exported.expected(ids), atol=TOLERANCE)


def pad_left_raw(raw, columns):
    """More padding, as a client would write it."""
    padded = pad_left(
        {k: v for k, v in raw.items() if v.dtype != object}, columns
    )
    for name, value in raw.items():
        if value.dtype == object:
            padded[name] = value
            if name.startswith("behavior_"):
                padded[name] = np.pad(
                    value, ((0, 0), (columns, 0)), constant_values=""
                )
    return padded


def test_answers_tell_requests_and_candidates_apart(answer):
    # Otherwise no test of this file says anything.
    assert answer.dtype == np.float32
    assert answer.shape == (4, 5)
    assert ((answer > 0.0) & (answer < 1.0)).all()
    assert np.ptp(answer, axis=0).min() > 0.01
    assert np.ptp(answer, axis=1).min() > 0.01


def test_order_of_candidates_changes_nothing(exported, raw, answer):
    order = [3, 0, 4, 1, 2]
    found = exported.probability(subset(raw, "candidate_", order))
    np.testing.assert_allclose(found, answer[:, order], atol=TOLERANCE)


@pytest.mark.parametrize("kept", [[2], [0, 4]])
def test_other_candidates_change_nothing(kept, exported, raw, answer):
    changed = subset(raw, "candidate_", kept)
    found = exported.probability(changed)
    np.testing.assert_allclose(found, answer[:, kept], atol=TOLERANCE)
    found = exported.score(exported.encode(raw), changed)
    np.testing.assert_allclose(found, answer[:, kept], atol=TOLERANCE)


@pytest.mark.parametrize("row", range(len(NUM_VALID)))
def test_other_requests_change_nothing(row, exported, raw, answer):
    found = exported.probability({k: v[row : row + 1] for k, v in raw.items()})
    np.testing.assert_allclose(found, answer[row : row + 1], atol=TOLERANCE)


@pytest.mark.parametrize("columns", [1, 35])
def test_left_padding_changes_nothing(columns, exported, raw, answer):
    padded = pad_left_raw(raw, columns)
    found = exported.probability(padded)
    np.testing.assert_allclose(found, answer, atol=TOLERANCE)
    found = exported.score(exported.encode(padded), raw)
    np.testing.assert_allclose(found, answer, atol=TOLERANCE)


def test_what_stands_in_the_padding_changes_nothing(exported, raw, answer):
    changed = {k: v.copy() for k, v in raw.items()}
    padding = raw["behavior_time"] == 0
    assert padding.any()
    changed["behavior_item"][padding] = 17
    changed["behavior_brand"][padding] = "brand 3"
    changed["behavior_time"][padding] = -5
    np.testing.assert_array_equal(exported.probability(changed), answer)


@pytest.mark.parametrize("weeks", [-3, 1, 401])
def test_whole_weeks_change_nothing(weeks, exported, raw, answer):
    shift = weeks * WEEK
    time = raw["behavior_time"]
    shifted = {
        **raw,
        "behavior_time": np.where(time > 0, time + shift, 0),
        "request_time": raw["request_time"] + shift,
    }
    found = exported.probability(shifted)
    np.testing.assert_allclose(found, answer, atol=TOLERANCE)


def test_time_changes_something(exported, raw, answer):
    later = {**raw, "request_time": raw["request_time"] + WEEK // 2}
    changed = np.abs(exported.probability(later) - answer).max(axis=1) > 1e-4
    # The second request has no history, so no difference of times.
    assert changed.tolist() == [True, False, True, True]


def test_one_user_state_serves_every_request_time(exported, raw):
    later = {**raw, "request_time": raw["request_time"] + WEEK // 2}
    np.testing.assert_allclose(
        exported.score(exported.encode(raw), later),
        exported.probability(later),
        atol=TOLERANCE,
    )


@pytest.mark.parametrize(
    ("num_valid", "length", "num_candidates"),
    [([2], 2, 1), ([0, 0, 0], 1, 2), ([40, 33], 40, 17)],
)
def test_any_batch_length_and_number_of_candidates(
    num_valid, length, num_candidates, exported
):
    ids, raw = requests(
        5, num_valid, length=length, num_candidates=num_candidates
    )
    expected = exported.expected(ids)
    assert expected.shape == (len(num_valid), num_candidates)
    np.testing.assert_allclose(
        exported.probability(raw), expected, atol=TOLERANCE
    )
    found = exported.score(exported.encode(raw), raw)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


_C_API = """
import sys
from pathlib import Path
from export.checks.c_api import SavedModelSession
from export.requests.warm_up import read_warm_up
[(name, inputs)] = read_warm_up(Path(sys.argv[2]))
with SavedModelSession(sys.argv[1]) as session:
    for text in ("", "\\0", "unknown"):
        inputs["user_gender"] = [text] * 4
        print(session.run(name, inputs)["probability"].tolist())
"""


def test_texts_keep_their_last_nul(exported, raw, repository, tmp_path):
    file = tmp_path / "requests"
    write_warm_up(file, [("serving_default", raw)], "sparsectr")
    done = subprocess.run(
        [sys.executable, "-c", _C_API, str(exported.path), str(file)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    known, with_nul, unknown = map(json.loads, done.stdout.splitlines())
    assert with_nul == unknown != known


def _both_ways(model, raw, folder):
    """Returns state and answers of the served graph, whole and in two steps."""
    raw_ids = RawIds(SCHEMA, VOCABULARIES, folder, MAX_HISTORY)
    graph = ServingGraph(model, raw_ids)
    whole_pass, encode, score = (
        tf.function(function, autograph=False)
        for function in (graph.whole_pass, graph.encode_user, graph.score)
    )
    tensors = {name: tf.constant(value) for name, value in raw.items()}
    state = encode(tensors)
    found = whole_pass(tensors), score({**tensors, **state})
    return state, [answer["probability"] for answer in found]


def test_full_attention(tmp_path):
    config = dataclasses.replace(CONFIG, attention="full")
    model = random_model(SCHEMA, config)
    ids, raw = requests(6, [29, 0, 3], length=31)
    state, answers = _both_ways(model, raw, tmp_path)
    assert state["state_keys"].shape == (3, 2, 31, 10)
    for found in answers:
        expected = tf.sigmoid(model(ids).logits)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "values",
    [
        {"attention": "dilated", "num_local_heads": 2},
        {"attention": "linformer", "encoding": "none"},
        {"attention": "nsa"},
    ],
    ids=lambda values: values["attention"],
)
def test_sparse_attentions(values, tmp_path):
    """A state of fixed size, one without places, and a longer one than L."""
    config = dataclasses.replace(CONFIG, **values)
    model = random_model(SCHEMA, config)
    ids, raw = requests(6, [29, 0, 3], length=31)
    state, answers = _both_ways(model, raw, tmp_path)
    (keys,) = {t for t in config.state_spec(SCHEMA).tensors if t.name == "keys"}
    assert state["state_keys"].shape == (3, *keys.sizes(31))
    for found in answers:
        expected = tf.sigmoid(model(ids).logits)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_mixed_precision(tmp_path):
    model = random_model(SCHEMA, CONFIG, dtype="mixed_bfloat16")
    ids, raw = requests(6, [29, 0, 3])
    state, answers = _both_ways(model, raw, tmp_path)
    assert state["state_keys"].dtype == tf.float32
    # Eager kernels round to bfloat16 at other places than those of a graph.
    expected = tf.sigmoid(tf.function(lambda ids: model(ids).logits)(ids))
    for found in answers:
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def _bytes_on_disk(path):
    files = (path / "variables").glob("*.data*")
    return sum(file.stat().st_size for file in files)


def _weight_bytes(model):
    return sum(weight.numpy().nbytes for weight in model.trainable_variables)


def test_weights_are_on_disk_once(exported):
    weights = _weight_bytes(exported.model)
    files = (exported.path / "variables").glob("*.data*")
    size = sum(file.stat().st_size for file in files)
    # Beside them: names and shapes, which do not grow with a table.
    assert weights <= size < weights + 12_000
    assert weights > 12_000, "a second copy would not be seen"


def test_weights_are_in_memory_once(exported):
    saved = saved_model_pb2.SavedModel.FromString(
        (exported.path / "saved_model.pb").read_bytes()
    )
    (graph,) = [meta.graph_def for meta in saved.meta_graphs]
    # Loading a model makes one variable for each of these.
    shapes = [
        tf.TensorShape(node.attr["shape"].shape).num_elements()
        for node in graph.node
        if node.op == "VarHandleOp"
        and tf.as_dtype(node.attr["dtype"].type) == tf.float32
    ]
    assert 4 * sum(shapes) == _weight_bytes(exported.model)


def test_fingerprint(exported, both):
    fingerprint = exported.graph.fingerprint
    state = exported.encode(both[1])
    assert state["state_fingerprint"].tolist() == [fingerprint] * 4
    assert 0 <= fingerprint < 2**53


def test_fingerprint_knows_weights_configuration_and_schema():
    def fingerprint(schema=SCHEMA, config=CONFIG, seed=1, changed=False):
        model = random_model(schema, config, seed)
        if changed:
            slopes = model.blocks[1].attention.encoding.slopes_hour
            slopes.assign(np.nextafter(slopes.numpy(), 9.0, dtype=np.float32))
        return model_fingerprint(model)

    offset = dataclasses.replace(SCHEMA, time_zone=TimeZone.fixed(7 * 60))
    window = dataclasses.replace(CONFIG, num_local=3)
    found = [
        fingerprint(),
        fingerprint(seed=2),
        fingerprint(changed=True),
        fingerprint(schema=offset),
        fingerprint(config=window),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint() == found[0]


def test_schema_without_user_fields(tmp_path):
    schema = without_user_fields(SCHEMA)
    model = random_model(schema, CONFIG)
    raw_ids = RawIds(schema, VOCABULARIES, tmp_path, MAX_HISTORY)
    graph = ServingGraph(model, raw_ids)
    ids, raw = requests(6, [29, 0, 3])
    tensors = {name: tf.constant(value) for name, value in raw.items()}
    state = graph.encode_user(tensors)
    assert set(state) == {t.name for t in state_tensors(schema, CONFIG)}
    found = graph.score({**tensors, **state})["probability"]
    expected = tf.sigmoid(model(ids).logits)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
