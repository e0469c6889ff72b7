"""The SavedModel as a server sees it: its inputs, its answers, its files.

What section 1 of the specification says must never be true is tested here
on the exported model itself.
"""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import export.saved_model
from export.saved_model import export_model
from export.signature import PROBABILITY
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory
from tests.keras_weights import random_model
from tests.make_requests import (
    SCHEMA,
    SMALL_CONFIG,
    WEEK,
    make_requests,
    pad_left,
    subset,
)

NUM_VALID = [29, 0, 3, 11]
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def model():
    return random_model(SCHEMA, SMALL_CONFIG)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    run = RunDirectory(folder / "run")
    run.create(Config(dataset="alibaba"), SCHEMA, folder)
    return run


@pytest.fixture(scope="module")
def path(model, run):
    output = run.path.parent / "models"
    # Versions of before, and what is none.
    for name in ("2", "7", "notes", "8-old"):
        (output / name).mkdir(parents=True)
    requests = [
        make_requests(1, NUM_VALID),
        make_requests(2, [5, 0], length=7, num_candidates=3),
    ]
    return export_model(model, run, output, requests)


@pytest.fixture(scope="module")
def serve(path):
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def call(inputs):
        tensors = {
            name: tf.constant(value)
            for name, value in inputs.items()
            if name != "candidate_mask"
        }
        return signature(**tensors)[PROBABILITY].numpy()

    call.signature = signature
    call.loaded = loaded
    return call


@pytest.fixture(scope="module")
def requests():
    return make_requests(3, NUM_VALID)


@pytest.fixture(scope="module")
def answer(serve, requests):
    return serve(requests)


def test_signature(serve):
    # A server sends by these names: written out, not derived.
    (_, inputs) = serve.signature.structured_input_signature
    assert {
        name: (spec.dtype, spec.shape.as_list())
        for name, spec in inputs.items()
    } == {
        "user_age": (tf.int32, [None]),
        "user_city": (tf.int32, [None]),
        "user_gender": (tf.int32, [None]),
        "behavior_item": (tf.int32, [None, None]),
        "behavior_brand": (tf.int32, [None, None]),
        "behavior_time": (tf.int64, [None, None]),
        "request_time": (tf.int64, [None]),
        "candidate_brand": (tf.int32, [None, None]),
        "candidate_item": (tf.int32, [None, None]),
        "candidate_place": (tf.int32, [None, None]),
        "candidate_price": (tf.float32, [None, None]),
    }
    (name, output) = serve.signature.structured_outputs.popitem()
    assert name == "probability"
    assert output.dtype == tf.float32
    assert output.shape.rank == 2


def test_equals_the_keras_model(model, requests, answer):
    expected = tf.sigmoid(model(requests)).numpy()
    np.testing.assert_allclose(answer, expected, atol=TOLERANCE)


def test_answers_tell_requests_and_candidates_apart(answer):
    # Otherwise no test of this file says anything.
    assert answer.dtype == np.float32
    assert answer.shape == (4, 5)
    assert ((answer > 0.0) & (answer < 1.0)).all()
    assert np.ptp(answer, axis=0).min() > 0.01
    assert np.ptp(answer, axis=1).min() > 0.01


def test_order_of_candidates_changes_nothing(serve, requests, answer):
    order = [3, 0, 4, 1, 2]
    found = serve(subset(requests, "candidate_", order))
    np.testing.assert_allclose(found, answer[:, order], atol=TOLERANCE)


@pytest.mark.parametrize("kept", [[2], [0, 4], []])
def test_other_candidates_change_nothing(kept, serve, requests, answer):
    kept = np.array(kept, int)
    found = serve(subset(requests, "candidate_", kept))
    np.testing.assert_allclose(found, answer[:, kept], atol=TOLERANCE)


@pytest.mark.parametrize("row", range(len(NUM_VALID)))
def test_other_requests_change_nothing(row, serve, requests, answer):
    found = serve({k: v[row : row + 1] for k, v in requests.items()})
    np.testing.assert_allclose(found, answer[row : row + 1], atol=TOLERANCE)


@pytest.mark.parametrize("columns", [1, 35])
def test_left_padding_changes_nothing(columns, serve, requests, answer):
    found = serve(pad_left(requests, columns))
    np.testing.assert_allclose(found, answer, atol=TOLERANCE)


def _shift(requests, seconds):
    time = requests["behavior_time"]
    return {
        **requests,
        "behavior_time": np.where(time > 0, time + seconds, 0),
        "request_time": requests["request_time"] + seconds,
    }


@pytest.mark.parametrize("weeks", [-3, 1, 401])
def test_whole_weeks_change_nothing(weeks, serve, requests, answer):
    found = serve(_shift(requests, weeks * WEEK))
    np.testing.assert_allclose(found, answer, atol=TOLERANCE)


def test_time_changes_something(serve, requests, answer):
    later = {**requests, "request_time": requests["request_time"] + WEEK // 2}
    changed = np.abs(serve(later) - answer).max(axis=1) > 1e-4
    # The second request has no history, so no difference of times.
    assert changed.tolist() == [True, False, True, True]


def test_no_history_at_all(serve, requests, answer):
    rows = {k: v[1:2] for k, v in requests.items()}
    found = serve(subset(rows, "behavior_", slice(0, 0)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, answer[1:2], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("num_valid", "length", "num_candidates"),
    [([2], 2, 1), ([0, 0, 0], 1, 2), ([83, 40], 83, 17)],
)
def test_any_batch_length_and_number_of_candidates(
    num_valid, length, num_candidates, serve, model
):
    requests = make_requests(
        5, num_valid, length=length, num_candidates=num_candidates
    )
    expected = tf.sigmoid(model(requests)).numpy()
    assert expected.shape == (len(num_valid), num_candidates)
    np.testing.assert_allclose(serve(requests), expected, atol=TOLERANCE)


ID_FIELDS = [
    *(f"user_{field.name}" for field in SCHEMA.user_fields),
    *(f"behavior_{field.name}" for field in SCHEMA.behavior_fields),
    *(f"candidate_{field.name}" for field in SCHEMA.candidate_fields),
]


@pytest.mark.parametrize("unknown", [-1, -(2**31), 43, 2**31 - 1])
def test_unknown_ids_are_out_of_vocabulary(unknown, serve, requests):
    # The largest table has 43 rows.
    def with_id(value):
        changed = dict(requests)
        for name in ID_FIELDS:
            changed[name] = np.array(requests[name])
            changed[name][..., -1] = value
        return changed

    np.testing.assert_array_equal(serve(with_id(unknown)), serve(with_id(1)))
    assert np.abs(serve(with_id(1)) - serve(with_id(2))).max() > 1e-3


@pytest.mark.parametrize("price", [np.nan, np.inf, -5.0, 0.0, 3.0e38])
def test_any_price_has_an_answer(price, serve, requests):
    prices = np.full_like(requests["candidate_price"], price)
    assert np.isfinite(serve({**requests, "candidate_price": prices})).all()


def test_weights_are_on_disk_once(path, model):
    size = sum(
        file.stat().st_size for file in (path / "variables").glob("*.data*")
    )
    weights = sum(v.numpy().nbytes for v in model.trainable_variables)
    # Beside them: names, shapes, seeds.
    assert weights <= size < weights + 12_000


def test_version_and_files(path, run):
    assert path.name == "8"
    assert {p.name for p in path.parent.iterdir()} == {
        *("2", "7", "8", "notes", "8-old")
    }
    for name in ("config.json", "schema.json", "environment.json"):
        copied = path / "assets.extra" / name
        assert json.loads(copied.read_text()) == json.loads(
            (run.path / name).read_text()
        )


@pytest.mark.parametrize("wrong", ["no model", "another model"])
def test_failed_verification_leaves_nothing(
    wrong, model, run, path, tmp_path, monkeypatch, capfd
):
    def write(_, folder):
        if wrong == "no model":
            folder.mkdir()
        else:
            shutil.copytree(path, folder)

    monkeypatch.setattr(export.saved_model, "_write", write)
    other = random_model(SCHEMA, SMALL_CONFIG, seed=1)
    output = tmp_path / "models"
    with pytest.raises(InputError, match="nothing was written"):
        export_model(other, run, output, [make_requests(1, NUM_VALID)])
    assert list(output.iterdir()) == []
    said = "is not a SavedModel" if wrong == "no model" else "differs from"
    assert said in capfd.readouterr().err
