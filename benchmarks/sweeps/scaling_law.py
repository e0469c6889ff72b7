"""Whether AUC grows with operations as a power law, and what to grow.

A point is a variant: a size (its parameters outside the tables) and a length.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboards.bootstrap import interval
from benchmarks.sweeps.power_law import fit_with_intervals

Array = npt.NDArray[Any]
Runs = Mapping[str, Mapping[str, Any]]

NUM_DRAWS = 500

_LEAST_FOR_GROWTH = 8


class Points(NamedTuple):
    """The variants that have been run with the same seeds.

    Attributes:
        size: Parameters outside the tables `[n]`.
        length: Behaviors of the longest history `[n]`.
        flops: Operations of a pass `[n]`.
        auc: Mean over seeds `[n]`.
        drawn: Means over drawn seeds, of drawn users, `[draws, n]`.
        num_seeds: How many seeds all of them have.
    """

    size: Array
    length: Array
    flops: Array
    auc: Array
    drawn: Array
    num_seeds: int


def scaling_law(runs: Mapping[str, Runs]) -> dict[str, Any] | None:
    """Returns the law of a sweep, `None` if it has too few points.

    Args:
        runs: Runs of each variant by their seed.

    Returns:
        Constants with intervals, R2, what length and size earn for a doubling
        of operations, and sentences.
    """
    points = points_of(runs)
    if points is None or len(np.unique(points.flops)) < 5:
        return None
    fitted = fit_with_intervals(points.flops, points.auc, points.drawn)
    law = fitted.law
    found: dict[str, Any] = {
        "num_points": len(points.flops),
        "num_seeds": points.num_seeds,
        "is_identifiable": fitted.unknown_because is None,
        "unknown_because": fitted.unknown_because,
        "alpha": {"value": law.exponent, "interval": list(fitted.exponent)},
        "limit": {"value": law.limit, "interval": list(fitted.limit)},
        "scale": {"value": law.scale, "interval": list(fitted.scale)},
        "r_squared": law.r_squared,
        "points": {
            "size": points.size.tolist(),
            "length": points.length.tolist(),
            "flops": points.flops.tolist(),
            "auc": points.auc.tolist(),
            "interval": [list(interval(column)) for column in points.drawn.T],
            "fitted": law.auc(points.flops).tolist(),
            "fitted_interval": [
                list(interval(column)) for column in fitted.curves.T
            ],
        },
        "growth": _growth(points),
    }
    found["sentences"] = [_about_law(found), _about_growth(found)]
    return found


def points_of(runs: Mapping[str, Runs]) -> Points | None:
    """Returns the variants that have runs, `None` if there are none.

    Every point is a mean over the same seeds, those that all of them have.
    """
    known = [
        {
            seed: run
            for seed, run in of_variant.items()
            if run["metrics"]["auc"] is not None and run.get("flops")
        }
        for of_variant in runs.values()
    ]
    kept = [found for found in known if found]
    order = sorted(set.intersection(*map(set, kept))) if kept else []
    if not order:
        return None
    first = [found[order[0]] for found in kept]
    auc = np.array(
        [[found[s]["metrics"]["auc"] for s in order] for found in kept]
    )
    return Points(
        size=np.array([run["num_parameters"]["dense"] for run in first]),
        length=np.array([run["max_history"] for run in first]),
        flops=np.array([run["flops"] for run in first], float),
        auc=auc.mean(axis=1),
        drawn=_drawn([[found[s] for s in order] for found in kept], auc),
        num_seeds=len(order),
    )


def _drawn(kept: list[list[Mapping[str, Any]]], auc: Array) -> Array:
    """Returns AUCs `[draws, n]` of drawn seeds and users, alike for all."""
    generator = np.random.default_rng(0)
    num_seeds = auc.shape[1]
    seeds = generator.integers(num_seeds, size=(NUM_DRAWS, num_seeds))
    shifts = _shifts(kept, auc)
    users = generator.integers(shifts.shape[2], size=NUM_DRAWS)
    of_seeds = auc[:, :, np.newaxis] + shifts  # [n, seeds, resamples]
    drawn = of_seeds[:, seeds, users[:, np.newaxis]]  # [n, draws, seeds]
    return np.asarray(drawn.mean(axis=2).T)


def _shifts(kept: list[list[Mapping[str, Any]]], auc: Array) -> Array:
    """Returns what drawing users changes, `[n, seeds, resamples]`."""
    given = [[run.get("resampled_aucs") or [] for run in row] for row in kept]
    if len({len(aucs) for row in given for aucs in row}) > 1 or not given[0][0]:
        return np.zeros((*auc.shape, 1))
    resampled = np.array(given, float)
    usable = np.isfinite(resampled).all(axis=(0, 1))
    if not usable.any():
        return np.zeros((*auc.shape, 1))
    return resampled[..., usable] - auc[..., np.newaxis]


def _growth(points: Points) -> dict[str, Any] | None:
    """Returns what growing earns, `None` where too little varies to know.

    At equal operations a longer history goes with a smaller model. What it
    earns there is the slope of log2(length) beside a cubic of log2(X), which
    is any smooth law of operations alone.
    """
    lengths, sizes = np.unique(points.length), np.unique(points.size)
    if min(len(lengths), len(sizes)) < 2 or len(points.auc) < _LEAST_FOR_GROWTH:
        return None
    x = np.log2(points.flops / np.exp(np.mean(np.log(points.flops))))
    length = np.log2(points.length)
    design = np.stack([length, *(x**power for power in range(4))], axis=1)
    solve = np.linalg.pinv(design)
    residual = points.auc - design @ (solve @ points.auc)
    residual *= np.sqrt(len(x) / (len(x) - design.shape[1]))
    # What seeds change, which users that are drawn again do not show.
    drawn = points.drawn + np.random.default_rng(1).choice(
        residual, points.drawn.shape
    )
    found = {
        "longer_at_equal_flops": {
            "value": float(solve[0] @ points.auc),
            "interval": list(interval(drawn @ solve[0])),
        }
    }
    for name, pairs in _neighbors(points).items():
        low, high = np.array(pairs).T
        doublings = np.log2(points.flops[high] / points.flops[low])
        gains = (drawn[:, high] - drawn[:, low]) / doublings
        value = (points.auc[high] - points.auc[low]) / doublings
        found[name] = {
            "value": float(value.mean()),
            "interval": list(interval(gains.mean(axis=1))),
        }
    return found


def _neighbors(points: Points) -> dict[str, list[tuple[int, int]]]:
    """Returns pairs of points that differ by one step of what is grown."""
    lengths, sizes = np.unique(points.length), np.unique(points.size)
    place = {
        (int(np.searchsorted(sizes, size)), int(np.searchsorted(lengths, n))): i
        for i, (size, n) in enumerate(
            zip(points.size, points.length, strict=True)
        )
    }
    steps = {"length": (0, 1), "size": (1, 0), "both": (1, 1)}
    found = {
        name: [
            (place[s, n], place[s + step[0], n + step[1]])
            for s, n in place
            if (s + step[0], n + step[1]) in place
        ]
        for name, step in steps.items()
    }
    return {name: pairs for name, pairs in found.items() if pairs}


def _about_law(found: Mapping[str, Any]) -> str:
    if not found["is_identifiable"]:
        return (
            f"Not identifiable: {found['unknown_because']} (alpha "
            f"{_range(found['alpha'])}, {found['num_points']} points, "
            f"{found['num_seeds']} seed(s), R2 {found['r_squared']:.3f})."
        )
    return (
        f"AUC = E - A / FLOPs^alpha with alpha {_range(found['alpha'])}, "
        f"E {_range(found['limit'])}, A {found['scale']['value']:.3g}; "
        f"R2 {found['r_squared']:.3f} over {found['num_points']} points of "
        f"{found['num_seeds']} seed(s)."
    )


def _about_growth(found: Mapping[str, Any]) -> str:
    growth = found["growth"]
    if growth is None:
        return "Which to grow is not known: too few lengths and sizes."
    earned = ", ".join(
        f"{name} {_signed(growth[name])}"
        for name in ("length", "size", "both")
        if name in growth
    )
    longer = growth["longer_at_equal_flops"]
    low, high = longer["interval"]
    if not any(
        growth[name]["interval"][0] > 0.0
        for name in ("length", "size")
        if name in growth
    ):
        advice = "Grow neither: no gain is certain"
    elif low > 0.0:
        advice = "Grow the length"
    elif high < 0.0:
        advice = "Grow the size"
    else:
        advice = "Grow either: neither is ahead for certain"
    return (
        f"{advice}. At equal operations, a history twice as long on a smaller "
        f"model earns {_signed(longer)} of AUC; a doubling of operations "
        f"earns by {earned}."
    )


def _signed(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:+.5f} ({low:+.5f} to {high:+.5f})"


def _range(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.3f} ({low:.3f} to {high:.3f})"
