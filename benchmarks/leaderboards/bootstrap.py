"""AUC of the same users drawn again and again, the same for every model."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NUM_RESAMPLES = 100


def resampled_aucs(
    user: Array,
    label: Array,
    score: Array,
    num_resamples: int = NUM_RESAMPLES,
) -> list[float]:
    """Returns the AUC of each resample of users.

    A resample gives each user a weight, which is Poisson(1): how often it
    would be drawn. Weights are those of the user's place among all users in
    order, so that two models on the same candidates are drawn the same users
    and their AUCs can be subtracted.

    Args:
        user: `[n]`, of anything that has an order.
        label: `[n]`, 0 or 1.
        score: `[n]`.
        num_resamples: How many.

    Returns:
        `num_resamples` numbers; NaN for one without both classes.

    Cost:
        One sort, and O(n) for each resample.
    """
    _, place = np.unique(user, return_inverse=True)
    order = np.argsort(score, kind="stable")
    place, label, score = place[order], label[order], score[order]
    # Candidates of one score are one step of the curve: half of their pairs
    # count.
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    found = []
    for number in range(num_resamples):
        generator = np.random.default_rng(number)
        weight = generator.poisson(1.0, int(place.max()) + 1)[place]
        clicks = np.add.reduceat(weight * label, starts).astype(float)
        others = np.add.reduceat(weight * (1 - label), starts).astype(float)
        below = np.cumsum(others) - others
        pairs = clicks.sum() * others.sum()
        ranked = (clicks * (below + 0.5 * others)).sum()
        found.append(float(ranked / pairs) if pairs else float("nan"))
    return found


def interval(values: Array, covered: float = 0.95) -> tuple[float, float]:
    """Returns the quantiles between which a share of the values is."""
    tail = (1.0 - covered) / 2.0
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return float(low), float(high)
