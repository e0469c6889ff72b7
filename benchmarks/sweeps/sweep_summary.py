"""What the runs of a sweep say: means, deviations, paired differences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboards.bootstrap import interval

Runs = Mapping[str, Mapping[str, Any]]
"""Runs by their seed."""

COVERED = 0.95
"""Of the intervals."""


class Estimate(NamedTuple):
    """A mean and how well it is known.

    Attributes:
        mean: Over seeds.
        deviation: Standard deviation over seeds; `None` of one seed.
        low: Lower end of the interval, `None` if it is not known.
        high: Upper end.
        over: What the interval is over: seeds (Student's t), or users, who
            are drawn again, of a single seed.
    """

    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    over: str | None = None


def summary(runs: Mapping[str, Runs]) -> dict[str, Any]:
    """Returns one entry for each variant that has an AUC.

    Args:
        runs: Runs of each variant, the base first.

    Returns:
        By variant: AUC, its difference to the first variant over the seeds
        that both have, and what it costs.
    """
    found: dict[str, Any] = {}
    base: Runs = {}
    for variant, given in runs.items():
        of_variant = _with_auc(given)
        if not of_variant or len(of_variant) < len(given):
            continue  # labels of one class have no AUC
        base = base or of_variant
        auc = _estimate([_auc(run) for run in of_variant.values()])
        if auc.low is None:
            (run,) = of_variant.values()
            auc = _over_users(auc, _resampled(run))
        gain = _gain(of_variant, base)
        last = list(of_variant.values())[-1]
        found[variant] = {
            "runs": len(of_variant),
            "auc_mean": auc.mean,
            "auc_std": auc.deviation,
            "auc_min": min(_auc(run) for run in of_variant.values()),
            "auc_interval": _ends(auc),
            "auc_interval_over": auc.over,
            "gain_mean": None if gain is None else gain.mean,
            "gain_std": None if gain is None else gain.deviation,
            "gain_interval": None if gain is None else _ends(gain),
            "gain_interval_over": None if gain is None else gain.over,
            "train_seconds_median": statistics.median(
                run["train_seconds"] for run in of_variant.values()
            ),
            "dense_parameters": last["num_parameters"]["dense"],
            "flops": last.get("flops"),
            "state_bytes": last.get("state_bytes"),
        }
    return found


def _with_auc(runs: Runs) -> Runs:
    return {s: r for s, r in runs.items() if r["metrics"]["auc"] is not None}


def _auc(run: Mapping[str, Any]) -> float:
    return float(run["metrics"]["auc"])


def _resampled(run: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Returns AUCs of resampled users, NaN for what has none."""
    return np.asarray(run.get("resampled_aucs") or [], float)


def _gain(runs: Runs, base: Runs) -> Estimate | None:
    """Returns the difference to the base over the seeds of both."""
    seeds = [seed for seed in runs if seed in base]
    if not seeds:
        return None
    gain = _estimate([_auc(runs[seed]) - _auc(base[seed]) for seed in seeds])
    if gain.low is not None or runs is base:
        return gain
    ours, theirs = _resampled(runs[seeds[0]]), _resampled(base[seeds[0]])
    if len(ours) != len(theirs):
        return gain
    return _over_users(gain, ours - theirs)


def _estimate(values: Sequence[float]) -> Estimate:
    """Returns mean, deviation and the t interval of several seeds."""
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return Estimate(mean)
    # Only where it is needed: SciPy is no requirement of the package.
    from scipy import stats

    deviation = statistics.stdev(values)
    quantile = float(stats.t.ppf((1.0 + COVERED) / 2.0, count - 1))
    half = quantile * deviation / math.sqrt(count)
    return Estimate(mean, deviation, mean - half, mean + half, "seeds")


def _over_users(estimate: Estimate, resampled: npt.NDArray[Any]) -> Estimate:
    known = resampled[np.isfinite(resampled)]
    if len(known) < 2:
        return estimate
    low, high = interval(known, COVERED)
    return estimate._replace(low=low, high=high, over="users")


def _ends(estimate: Estimate) -> list[float] | None:
    if estimate.low is None or estimate.high is None:
        return None
    return [estimate.low, estimate.high]
