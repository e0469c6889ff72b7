import dataclasses
import json
import math

import hypothesis
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies as st

from sparsectr import metrics
from sparsectr.errors import InputError

# Few distinct scores: ties everywhere. Few groups: some of one class.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([-3.0, -0.5, -0.0, 0.0, 0.5, 2.0, math.inf]),
        st.sampled_from([7, -1, 123456789012, 3]),
    ),
    min_size=1,
    max_size=60,
)


def pair_counting_auc(labels, predictions) -> float:
    """The definition: every pair of a click and a non-click."""
    score = pairs = 0
    for label_i, prediction_i in zip(labels, predictions, strict=True):
        for label_j, prediction_j in zip(labels, predictions, strict=True):
            if label_i == 1 and label_j == 0:
                pairs += 1
                score += (prediction_i > prediction_j) + 0.5 * (
                    prediction_i == prediction_j
                )
    return score / pairs if pairs else math.nan


@hypothesis.given(ROWS)
def test_auc_is_the_count_of_pairs(rows):
    labels, predictions, _ = map(np.array, zip(*rows, strict=True))
    np.testing.assert_equal(
        metrics.auc(labels, predictions), pair_counting_auc(labels, predictions)
    )


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auc_agrees_with_scikit_learn(decimals, dtype):
    generator = np.random.default_rng(0)
    labels = generator.random(4001) < 0.05
    predictions = (labels + generator.normal(size=4001)).round(decimals)
    predictions = predictions.astype(dtype)
    assert metrics.auc(labels, predictions) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, predictions), abs=1e-13
    )


def test_auc_of_more_pairs_than_int32_holds():
    labels = np.repeat([0, 1], 100_000)
    assert metrics.auc(labels, np.arange(200_000)) == 1.0
    assert metrics.auc(labels, np.zeros(200_000)) == 0.5
    assert metrics.auc(labels, -np.arange(200_000)) == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_nan(label):
    assert math.isnan(metrics.auc([label, label], [0.1, 0.2]))


@hypothesis.given(ROWS, st.sampled_from(["samples", "positives", "none"]))
def test_gauc_is_the_weighted_mean_over_groups(rows, weighting):
    labels, predictions, groups = map(np.array, zip(*rows, strict=True))
    values, weights, skipped = [], [], 0
    for group in np.unique(groups):
        own = groups == group
        value = pair_counting_auc(labels[own], predictions[own])
        if math.isnan(value):
            skipped += 1
            continue
        values.append(value)
        clicks = labels[own].sum()
        weights.append(
            {"samples": own.sum(), "positives": clicks, "none": 1}[weighting]
        )
    expected = np.average(values, weights=weights) if values else math.nan

    result = metrics.gauc(labels, predictions, groups, weighting)

    np.testing.assert_allclose(result.value, expected, rtol=1e-13)
    assert result.num_groups == len(values)
    assert result.num_groups_skipped == skipped


def test_gauc_of_one_group_is_auc():
    labels, predictions = [0, 1, 1, 0, 1], [0.2, 0.2, 0.9, 0.8, 0.1]
    result = metrics.gauc(labels, predictions, ["a"] * 5)
    assert result.value == metrics.auc(labels, predictions)


def test_log_loss_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=997, scale=3)
    labels = generator.random(997) < 0.2
    assert metrics.log_loss(labels, logits) == pytest.approx(
        sklearn.metrics.log_loss(labels, 1 / (1 + np.exp(-logits))), rel=1e-12
    )


def test_log_loss_of_confident_logits_is_exact():
    assert metrics.log_loss([0, 1], np.float32([800.0, 800.0])) == 400.0
    assert metrics.log_loss([1], [40.0]) == pytest.approx(
        math.exp(-40), rel=1e-12, abs=0
    )


def test_calibration():
    logits = np.log(np.array([0.2, 0.4, 0.6]) / np.array([0.8, 0.6, 0.4]))
    assert metrics.calibration([0, 0, 1], logits) == pytest.approx(1.2)
    assert metrics.calibration([1, 0], np.float32([-800, 800])) == 1.0
    assert math.isnan(metrics.calibration([0, 0], [0.0, 0.0]))


def test_relative_improvement():
    assert metrics.relative_improvement(0.66, 0.6) == pytest.approx(0.6)
    assert metrics.relative_improvement(0.6, 0.6) == 0.0
    with pytest.raises(ValueError, match=r"`base_auc` must not be 0\.5"):
        metrics.relative_improvement(0.6, 0.5)


def test_compute_metrics():
    labels = [0, 1, 0, 1, 1]
    logits = [-1.0, 0.0, 0.5, 0.25, -2.0]
    users = [5, 5, 9, 9, 2]
    result = metrics.compute_metrics(labels, logits, users)
    assert result == metrics.Metrics(
        auc=pytest.approx(1 / 3),
        gauc=0.5,
        logloss=metrics.log_loss(labels, logits),
        calibration=metrics.calibration(labels, logits),
        num_candidates=5,
        num_groups_skipped=1,
    )


METRICS = metrics.Metrics(
    auc=0.6523991,
    gauc=0.5765119,
    logloss=0.19244499,
    calibration=1.5,
    num_candidates=3,
    num_groups_skipped=1,
)


def test_log_line():
    assert METRICS.log_line() == (
        "[Metrics] AUC: 0.652399 - GAUC: 0.576512 - logloss: 0.192445"
    )


def test_dict_is_json_and_has_no_nan():
    without_gauc = dataclasses.replace(METRICS, gauc=math.nan)
    values = {
        "auc": 0.6523991,
        "gauc": None,
        "logloss": 0.19244499,
        "calibration": 1.5,
        "num_candidates": 3,
        "num_groups_skipped": 1,
    }
    text = json.dumps(without_gauc.to_dict(), allow_nan=False)
    assert json.loads(text) == values


MEASURES = {
    "auc": metrics.auc,
    "gauc": lambda labels, scores: metrics.gauc(labels, scores, scores),
    "log_loss": metrics.log_loss,
    "calibration": metrics.calibration,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
class TestBadInput:
    def test_nan(self, measure):
        with pytest.raises(InputError, match="1 of 2 predictions are NaN"):
            measure([0, 1], [0.5, math.nan])

    def test_label(self, measure):
        with pytest.raises(InputError, match="Labels must be 0 or 1"):
            measure([0, 2], [0.5, 0.5])

    def test_nothing(self, measure):
        with pytest.raises(InputError, match="no candidate"):
            measure([], [])

    def test_shapes(self, measure):
        with pytest.raises(ValueError, match="`predictions` must have the sha"):
            measure([0, 1], [0.5])
        with pytest.raises(ValueError, match="`labels` must be flat"):
            measure([[0, 1]], [[0.5, 0.5]])


def test_bad_arguments_of_gauc():
    with pytest.raises(ValueError, match="`groups` must have the shape"):
        metrics.gauc([0, 1], [0.5, 0.1], [1])
    with pytest.raises(ValueError, match="Received: weighting='clicks'"):
        metrics.gauc([0, 1], [0.5, 0.1], [1, 1], "clicks")


@pytest.mark.slow
def test_ten_million_candidates():
    generator = np.random.default_rng(0)
    size = 10_000_000
    logits = generator.normal(size=size).astype(np.float32)
    labels = generator.random(size) < 1 / (1 + np.exp(-logits))
    users = generator.integers(0, 300_000, size)
    result = metrics.compute_metrics(labels, logits, users)
    assert result.num_candidates == size
    assert result.gauc == pytest.approx(result.auc, abs=2e-3)
    assert result.calibration == pytest.approx(1, abs=2e-3)
