"""Resamples of users, and tests over seeds, against plain computations."""

import numpy as np
import pytest

from benchmarks.leaderboards.bootstrap import interval, resampled_aucs
from benchmarks.leaderboards.significance import paired_tests


def _slow_auc(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray
) -> float:
    wins = total = 0.0
    for i in np.flatnonzero(label == 1):
        for j in np.flatnonzero(label == 0):
            pair = weight[i] * weight[j]
            total += pair
            wins += pair * (
                (score[i] > score[j]) + 0.5 * (score[i] == score[j])
            )
    return wins / total


def test_resamples_weigh_users() -> None:
    random = np.random.default_rng(0)
    user = np.array([f"user {n}" for n in random.integers(0, 11, 97)])
    label = random.integers(0, 2, 97)
    score = random.integers(0, 13, 97) / 7  # with ties
    found = resampled_aucs(user, label, score, 5)
    names, place = np.unique(user, return_inverse=True)
    for number, auc in enumerate(found):
        weight = np.random.default_rng(number).poisson(1.0, len(names))[place]
        assert auc == pytest.approx(_slow_auc(label, score, weight))
    assert len(set(found)) == 5


def test_the_same_users_for_every_model() -> None:
    random = np.random.default_rng(1)
    user, label = random.integers(0, 50, 900), random.integers(0, 2, 900)
    score = label + random.normal(size=900)
    better = score + 0.1 * label
    # Another order of the rows is the same resample.
    order = random.permutation(900)
    first = np.array(resampled_aucs(user, label, score))
    second = np.array(resampled_aucs(user[order], label[order], better[order]))
    assert np.std(second - first) < 0.2 * np.std(first)
    low, high = interval(second - first)
    assert 0.0 < low < high


def test_one_class_has_no_auc() -> None:
    user = np.arange(3)
    found = resampled_aucs(user, np.zeros(3), np.arange(3.0), 2)
    assert np.isnan(found).all()


def test_paired_tests_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    best = {"0": 0.71, "1": 0.72, "2": 0.715, "3": 0.718}
    others = {
        "near": {"0": 0.709, "1": 0.722, "2": 0.713, "3": 0.716},
        "far": {"0": 0.69, "1": 0.702, "2": 0.694, "3": 0.699},
        "middle": {"0": 0.705, "2": 0.713, "3": 0.709, "9": 0.5},
        "once": {"0": 0.6},
    }
    found = paired_tests(best, others)
    assert found.keys() == {"near", "far", "middle"}
    for name, test in found.items():
        seeds = best.keys() & others[name].keys()
        expected = stats.ttest_rel(
            [best[s] for s in sorted(seeds)],
            [others[name][s] for s in sorted(seeds)],
        )
        assert test.num_pairs == len(seeds)
        assert test.p_value == pytest.approx(expected.pvalue)
        assert test.difference / test.standard_error == pytest.approx(
            expected.statistic
        )
    ordered = sorted(found.values(), key=lambda test: test.p_value)
    for place, test in enumerate(ordered):
        assert test.corrected >= min(1.0, (3 - place) * test.p_value) - 1e-12
    assert ordered[0].corrected == pytest.approx(3 * ordered[0].p_value)


def test_equal_runs_differ_by_nothing() -> None:
    pytest.importorskip("scipy")
    same = {"0": 0.7, "1": 0.8}
    (test,) = paired_tests(same, {"other": same}).values()
    assert (test.difference, test.p_value) == (0.0, 1.0)
    apart = {"0": 0.6, "1": 0.7}
    (test,) = paired_tests(same, {"other": apart}).values()
    assert test.p_value < 1e-6
