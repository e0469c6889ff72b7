"""The function that recalibration fits, in NumPy and in the graph."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.calibration import Calibration, fit
from sparsectr.errors import InputError
from sparsectr.metrics import calibration, log_loss
from sparsectr.prediction.calibrated import calibrated

KNOTS = Calibration(
    method="isotonic",
    step=3,
    logits=(-2.0, 0.0, 1.0),
    calibrated=(-3.0, -1.0, -1.0),
    outer_slope=1.0,
)


def clicks(num, slope, intercept):
    """Logits, and clicks whose log-odds are another line than the logits."""
    generator = np.random.default_rng(5)
    logits = generator.normal(-2, 1.5, num).astype(np.float32)
    odds = slope * logits + intercept
    return generator.random(num) < 1 / (1 + np.exp(-odds)), logits


def test_pieces_by_hand():
    logits = np.float32([-5, -2, -1, 0, 0.5, 1, 3])
    expected = [-6, -3, -2, -1, -1, -1, 1]
    np.testing.assert_array_equal(KNOTS(logits), np.float32(expected))


def test_the_graph_computes_the_same():
    logits = np.random.default_rng(1).normal(0, 3, (7, 11)).astype(np.float32)
    logits[0, 0] = np.nan
    for jit_compile in (False, True):
        function = tf.function(calibrated, jit_compile=jit_compile)
        found = function(tf.constant(logits), KNOTS).numpy()
        np.testing.assert_allclose(found, KNOTS(logits), rtol=0, atol=1e-6)
    assert calibrated(logits, None) is logits


def test_platt_finds_the_line():
    labels, logits = clicks(200_000, slope=0.5, intercept=-0.75)
    found = fit("platt", labels, logits, step=9)
    assert (found.step, len(found.logits)) == (9, 1)
    # Three standard errors of the fit.
    assert found.outer_slope == pytest.approx(0.5, abs=0.03)
    assert found.calibrated[0] == pytest.approx(-0.75, abs=0.06)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_is_fitted_mends_the_scores(method):
    labels, logits = clicks(20_000, slope=2.0, intercept=1.0)
    found = fit(method, labels[::2], logits[::2], step=9)
    others, before = labels[1::2], logits[1::2]
    after = found(before)
    assert log_loss(others, after) < log_loss(others, before) - 0.01
    was, now = calibration(others, before), calibration(others, after)
    assert abs(now - 1) < 0.05 < abs(was - 1)
    assert np.all(np.diff(found(np.sort(before))) >= 0)
    text = json.dumps(found.to_dict())
    assert Calibration.from_json(text, "here") == found


def test_no_probability_is_certain():
    labels = np.repeat([0, 1], 400)
    logits = np.linspace(-1, 1, 800).astype(np.float32)
    found = fit("isotonic", labels, logits, step=1)
    assert np.isfinite(found.calibrated).all()
    assert max(found.calibrated) == pytest.approx(np.log(2 * 800 - 1))
    same = fit("isotonic", labels, np.zeros(800, np.float32), step=1)
    assert (same.logits, same.calibrated) == ((0.0,), (0.0,))


def test_what_cannot_be(monkeypatch):
    ones, logits = np.ones(3), np.zeros(3, np.float32)
    with pytest.raises(InputError, match="of 3 candidates 3 were clicked"):
        fit("platt", ones, logits, step=1)
    with pytest.raises(InputError, match=r"a.json is damaged: .*logits"):
        Calibration.from_json('{"method": "a", "step": 1}', "a.json")
    values = KNOTS.to_dict() | {"logits": [0, 0, 1]}
    with pytest.raises(InputError, match=r"a.json is damaged: .*ascending"):
        Calibration.from_json(json.dumps(values), "a.json")
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(InputError, match=r"pip install 'sparsectr\[calib"):
        fit("platt", np.array([0, 1, 1]), logits, step=1)
