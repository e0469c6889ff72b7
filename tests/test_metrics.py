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


@hypothesis.given(
    ROWS,
    st.sampled_from(["samples", "positives", "none"]),
    st.sampled_from([1, 2, 5]),
)
def test_gauc_is_the_weighted_mean_over_groups(rows, weighting, min_size):
    labels, predictions, groups = map(np.array, zip(*rows, strict=True))
    values, weights, skipped = [], [], 0
    for group in np.unique(groups):
        own = groups == group
        if own.sum() < min_size:
            continue
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

    result = metrics.gauc(labels, predictions, groups, weighting, min_size)

    np.testing.assert_allclose(result.value, expected, rtol=1e-13)
    assert result.num_groups == len(values)
    assert result.num_groups_skipped == skipped


def test_gauc_of_one_group_is_auc():
    labels, predictions = [0, 1, 1, 0, 1], [0.2, 0.2, 0.9, 0.8, 0.1]
    result = metrics.gauc(labels, predictions, ["a"] * 5)
    assert result.value == metrics.auc(labels, predictions)


def slow_standard_error(labels, predictions, groups) -> float:
    """DeLong's placements, pair by pair, added up by group."""
    auc = pair_counting_auc(labels, predictions)
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    moved = dict.fromkeys(groups.tolist(), 0.0)
    rows = list(zip(labels, predictions, groups.tolist(), strict=True))
    for label_i, prediction_i, group in rows:
        others = [p for label, p, _ in rows if label != label_i]
        sign = 1 if label_i else -1
        right = sum(
            0.5
            if prediction_i == other
            else float(sign * (prediction_i > other) + (not label_i))
            for other in others
        ) / len(others)
        moved[group] += (right - auc) / (positives if label_i else negatives)
    count = len(moved)
    total = sum(value**2 for value in moved.values())
    return math.sqrt(count / (count - 1) * total)


@hypothesis.given(ROWS)
def test_standard_error_is_the_sum_over_pairs(rows):
    labels, predictions, groups = map(np.array, zip(*rows, strict=True))
    result = metrics.auc_standard_error(labels, predictions, groups)
    if len(set(labels)) == 1 or len(set(groups)) == 1:
        assert math.isnan(result)
    else:
        expected = slow_standard_error(labels, predictions, groups)
        assert result == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_standard_error_is_that_of_a_bootstrap_over_users():
    generator = np.random.default_rng(0)
    num_users, size = 300, 3000
    users = generator.integers(0, num_users, size)
    taste = generator.normal(size=num_users)[users]
    labels = generator.random(size) < 1 / (1 + np.exp(-taste))
    scores = taste + generator.normal(size=size)
    rows_of = [np.flatnonzero(users == user) for user in range(num_users)]
    drawn = []
    for _ in range(400):
        chosen = generator.integers(0, num_users, num_users)
        rows = np.concatenate([rows_of[user] for user in chosen])
        drawn.append(metrics.auc(labels[rows], scores[rows]))
    by_user = metrics.auc_standard_error(labels, scores, users)
    by_row = metrics.auc_standard_error(labels, scores, np.arange(size))
    assert by_user == pytest.approx(np.std(drawn, ddof=1), rel=0.1)
    # Rows of a user are not independent: it is not that over rows.
    assert by_user > 1.3 * by_row


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


def test_normalized_entropy():
    labels = [0, 0, 1, 0]
    of_the_mean = np.full(4, math.log(0.25 / 0.75))
    assert metrics.normalized_entropy(labels, of_the_mean) == pytest.approx(1)
    better = of_the_mean + np.array([0, 0, 1, 0])
    assert metrics.normalized_entropy(labels, better) == pytest.approx(
        metrics.log_loss(labels, better)
        / sklearn.metrics.log_loss(labels, np.full(4, 0.25))
    )
    assert math.isnan(metrics.normalized_entropy([0, 0], [0.0, 0.0]))
    assert math.isnan(metrics.normalized_entropy([1], [0.0]))


def test_calibration():
    logits = np.log(np.array([0.2, 0.4, 0.6]) / np.array([0.8, 0.6, 0.4]))
    assert metrics.calibration([0, 0, 1], logits) == pytest.approx(1.2)
    assert metrics.calibration([1, 0], np.float32([-800, 800])) == 1.0
    assert math.isnan(metrics.calibration([0, 0], [0.0, 0.0]))


def test_relative_improvement():
    assert metrics.relative_improvement(0.66, 0.6) == pytest.approx(0.6)
    assert metrics.relative_improvement(0.6, 0.6) == 0.0
    for base_auc in (0.5, 0.45, 1.01, math.nan):
        with pytest.raises(ValueError, match=r"must be above 0\.5 and at mos"):
            metrics.relative_improvement(0.6, base_auc)


def test_compute_metrics():
    labels = [0, 1, 0, 1, 1]
    logits = [-1.0, 0.0, 0.5, 0.25, -2.0]
    users = [5, 5, 9, 9, 2]
    requests = [1, 1, 3, 4, 4]
    result = metrics.compute_metrics(labels, logits, users, requests)
    assert result == metrics.Metrics(
        auc=pytest.approx(1 / 3),
        auc_standard_error=metrics.auc_standard_error(labels, logits, users),
        gauc=0.5,
        # The first two; not the one that stands alone.
        gauc_by_request=1.0,
        logloss=metrics.log_loss(labels, logits),
        normalized_entropy=metrics.normalized_entropy(labels, logits),
        calibration=metrics.calibration(labels, logits),
        num_candidates=5,
        num_groups_skipped=1,
        num_requests_counted=1,
        num_requests_skipped=1,
    )


def test_compute_metrics_of_no_click():
    result = metrics.compute_metrics([0, 0], [0.0, 1.0], [1, 1], [1, 2])
    values = result.to_dict()
    undefined = {name for name, value in values.items() if value is None}
    assert undefined == set(values["undefined"])
    assert undefined == {
        "auc",
        "auc_standard_error",
        "gauc",
        "gauc_by_request",
        "normalized_entropy",
        "calibration",
    }


METRICS = metrics.Metrics(
    auc=0.6523991,
    auc_standard_error=0.0012,
    gauc=0.5765119,
    gauc_by_request=0.61,
    logloss=0.19244499,
    normalized_entropy=0.95,
    calibration=1.5,
    num_candidates=3,
    num_groups_skipped=1,
    num_requests_counted=2,
    num_requests_skipped=4,
)


def test_log_lines():
    assert METRICS.log_lines().splitlines() == [
        "[Metrics] AUC: 0.652399 - GAUC: 0.576512 - logloss: 0.192445",
        "[Metrics] NE: 0.950000 - GAUC by request: 0.610000 (of 2) - "
        "calibration: 1.500000 - of one class and skipped: 1 users, 4 requests",
    ]


def test_log_lines_of_another_kind_are_not_taken_for_these():
    for line in METRICS.log_lines("frozen history").splitlines():
        assert line.startswith("[Metrics, frozen history] ")


def test_dict_is_json_and_has_no_nan():
    without_gauc = dataclasses.replace(METRICS, gauc=math.nan)
    values = {
        **dataclasses.asdict(METRICS),
        "gauc": None,
        "undefined": {"gauc": "no user has labels of both classes"},
    }
    assert "undefined" not in METRICS.to_dict()
    text = json.dumps(without_gauc.to_dict(), allow_nan=False)
    assert json.loads(text) == values


MEASURES = {
    "auc": metrics.auc,
    "gauc": lambda labels, scores: metrics.gauc(labels, scores, scores),
    "auc_standard_error": lambda labels, scores: metrics.auc_standard_error(
        labels, scores, scores
    ),
    "log_loss": metrics.log_loss,
    "normalized_entropy": metrics.normalized_entropy,
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
    result = metrics.compute_metrics(labels, logits, users, users)
    assert result.num_candidates == size
    assert result.gauc == pytest.approx(result.auc, abs=2e-3)
    assert result.calibration == pytest.approx(1, abs=2e-3)
