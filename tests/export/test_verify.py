"""`export.verify` fails where a SavedModel is not what it should be."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from export.verify import largest_difference
from sparsectr.errors import InputError
from tests.commands import assert_refused

BATCHES = [
    {
        "price": np.array([[0.25, 0.5], [0.75, 1.0]], np.float32),
        "probability": np.array([[0.125, 0.25], [0.375, 0.5]], np.float32),
    },
    {
        "price": np.array([[0.1, 0.2, 0.3]], np.float32),
        "probability": np.array([[0.05, 0.1, 0.15]], np.float32),
    },
]


class Half(tf.Module):
    """Half the price is the probability."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(0.5)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.float32, name="price")]
    )
    def serve(self, price):
        return {"probability": self.factor * price}


def _save(path, factor=0.5, signature="serving_default"):
    module = Half()
    module.factor.assign(factor)
    tf.saved_model.save(module, str(path), signatures={signature: module.serve})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("verify") / "model")


def _write_requests(path, batches=BATCHES):
    arrays = {
        f"{index}/{name}": value
        for index, batch in enumerate(batches)
        for name, value in batch.items()
    }
    np.savez(path, **arrays)
    return path


def _verify(command, model, requests, *flags):
    return command(
        "export.verify", f"--model={model}", f"--requests={requests}", *flags
    )


def _altered(place, value):
    batch = {name: array.copy() for name, array in BATCHES[1].items()}
    batch["probability"][place] = value
    return [BATCHES[0], batch]


def test_same_answers(command, model, tmp_path):
    done = _verify(command, model, _write_requests(tmp_path / "r.npz"))
    assert done.returncode == 0, done.stderr
    assert "over 7 candidates of 2 batches" in done.stdout


@pytest.mark.parametrize("value", [0.15001, np.nan])
def test_altered_answer(value, command, model, tmp_path):
    requests = _write_requests(tmp_path / "r.npz", _altered((0, 2), value))
    done = _verify(command, model, requests)
    assert_refused(done, f"{model} differs from the Keras model", "1e-06")


def test_tolerance_is_what_decides(command, model, tmp_path):
    requests = _write_requests(tmp_path / "r.npz", _altered((0, 2), 0.15001))
    done = _verify(command, model, requests, "--tolerance=0.001")
    assert done.returncode == 0, done.stderr


def test_no_saved_model(command, tmp_path):
    requests = _write_requests(tmp_path / "r.npz")
    done = _verify(command, tmp_path, requests)
    assert_refused(done, f"{tmp_path} is not a SavedModel")


def test_damaged_requests(command, model, tmp_path):
    requests = _write_requests(tmp_path / "r.npz")
    requests.write_bytes(requests.read_bytes()[:-40])
    assert_refused(_verify(command, model, requests), f"{requests} cannot be")
    requests.write_bytes(b"")
    assert_refused(_verify(command, model, requests), f"{requests} cannot be")


def test_no_expected_answers(command, model, tmp_path):
    requests = tmp_path / "r.npz"
    np.savez(requests, **{"0/price": BATCHES[0]["price"]})
    done = _verify(command, model, requests)
    assert_refused(done, "has no batches with expected answers")


def test_largest_difference(model):
    difference, count = largest_difference(str(model), _altered((0, 1), 0.4))
    assert difference == pytest.approx(0.3)
    assert count == 7


def test_nan_answer(tmp_path):
    path = _save(tmp_path / "model", factor=np.nan)
    difference, _ = largest_difference(str(path), BATCHES)
    assert np.isnan(difference)


def test_no_signature(tmp_path):
    path = _save(tmp_path / "model", signature="regression")
    with pytest.raises(InputError, match="has no signature serving_default"):
        largest_difference(str(path), BATCHES)


def test_other_inputs(model):
    batch = {**BATCHES[0], "label": BATCHES[0]["price"]}
    with pytest.raises(InputError, match="does not take the request"):
        largest_difference(str(model), [batch])


def test_other_shape(model):
    batch = {**BATCHES[0], "probability": BATCHES[1]["probability"]}
    with pytest.raises(InputError, match=r"answers with shape \(2, 2\)"):
        largest_difference(str(model), [batch])


def test_lost_weights(model, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(model, path)
    shutil.rmtree(path / "variables")
    with pytest.raises(InputError, match="is not a SavedModel"):
        largest_difference(str(path), BATCHES)
