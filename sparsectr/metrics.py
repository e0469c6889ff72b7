"""Exact metrics over real candidates, in NumPy.

Every function takes flat arrays with one entry for each real candidate
(`candidate_mask` applied), n entries in all.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsectr.errors import InputError

Weighting = Literal["samples", "positives", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedAUC:
    """A mean of the AUCs of groups.

    Args:
        value: The mean; NaN if every group was skipped.
        num_groups: Groups that count.
        num_groups_skipped: Groups of one class, which have no AUC. Those
            that are too small are in neither number.
    """

    value: float
    num_groups: int
    num_groups_skipped: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a run reports. NaN is what the candidates do not define.

    Args:
        auc: Exact AUC over all candidates.
        auc_standard_error: Its standard error, over users.
        gauc: AUC per user, weighted by the user's candidates.
        gauc_by_request: AUC per request of at least two candidates, weighted
            by them: the order that a user sees.
        logloss: Mean binary cross-entropy.
        normalized_entropy: `logloss` over that of the mean label.
        calibration: Mean prediction / mean label.
        num_candidates: Candidates behind the numbers.
        num_groups_skipped: Users of one class, left out of `gauc`.
        num_requests_counted: Requests behind `gauc_by_request`.
        num_requests_skipped: Requests of at least two candidates, all of one
            class, left out of it.
        is_weighted: Whether log loss, normalized entropy and calibration
            weigh each candidate, as training did.
    """

    auc: float
    auc_standard_error: float
    gauc: float
    gauc_by_request: float
    logloss: float
    normalized_entropy: float
    calibration: float
    num_candidates: int
    num_groups_skipped: int
    num_requests_counted: int
    num_requests_skipped: int
    is_weighted: bool = False

    def log_lines(self, history: str = "") -> str:
        """Returns what logs and tools read: two lines.

        Args:
            history: What the histories were, where they were not those that
                the users had: numbers of another kind, named so.
        """
        what = f"[Metrics, {history}]" if history else "[Metrics]"
        return (
            f"{what} AUC: {self.auc:.6f} - GAUC: {self.gauc:.6f} - "
            f"logloss: {self.logloss:.6f}\n"
            f"{what} NE: {self.normalized_entropy:.6f} - GAUC by request: "
            f"{self.gauc_by_request:.6f} (of {self.num_requests_counted}) - "
            f"calibration: {self.calibration:.6f} - of one class and "
            f"skipped: {self.num_groups_skipped} users, "
            f"{self.num_requests_skipped} requests"
            + (_WEIGHTED if self.is_weighted else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON, which has no NaN: `None` instead.

        Where there is one, `undefined` says of each why.
        """
        values = dataclasses.asdict(self)
        undefined = {
            name: _WHY_UNDEFINED[name]
            for name, value in values.items()
            if math.isnan(value)
        }
        values |= dict.fromkeys(undefined)
        return {**values, "undefined": undefined} if undefined else values


_WEIGHTED = " - weighted: logloss, NE and calibration"

_ONE_CLASS = "the labels are of one class"
_WHY_UNDEFINED = {
    "auc": _ONE_CLASS,
    "auc_standard_error": "the labels are of one class, or of one user",
    "gauc": "no user has labels of both classes",
    "gauc_by_request": "no request of at least two candidates has labels of "
    "both classes",
    "normalized_entropy": _ONE_CLASS,
    "calibration": "there is no click",
}


def compute_metrics(
    labels: ArrayLike,
    logits: ArrayLike,
    users: ArrayLike,
    requests: ArrayLike,
    weights: ArrayLike | None = None,
) -> Metrics:
    """Returns all metrics of the candidates.

    Args:
        labels: 0 or 1, `[n]`.
        logits: Scores before the sigmoid, `[n]`.
        users: User of each candidate, `[n]`.
        requests: Request of each candidate, `[n]`.
        weights: What each counts for in log loss, normalized entropy and
            calibration, `[n]`. The AUCs count each once.

    Raises:
        InputError: If a logit is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.
    """
    per_user = gauc(labels, logits, users)
    by_request = gauc(labels, logits, requests, min_size=2)
    return Metrics(
        auc=auc(labels, logits),
        auc_standard_error=auc_standard_error(labels, logits, users),
        gauc=per_user.value,
        gauc_by_request=by_request.value,
        logloss=log_loss(labels, logits, weights),
        normalized_entropy=normalized_entropy(labels, logits, weights),
        calibration=calibration(labels, logits, weights),
        is_weighted=weights is not None,
        num_candidates=np.size(np.asarray(labels)),
        num_groups_skipped=per_user.num_groups_skipped,
        num_requests_counted=by_request.num_groups,
        num_requests_skipped=by_request.num_groups_skipped,
    )


def auc(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Returns the exact area under the ROC curve.

    It is the share of (click, non-click) pairs in the right order, a tie
    counting one half.

    Args:
        labels: 0 or 1, `[n]`.
        predictions: Scores of any scale, `[n]`. Logits are better than
            probabilities, whose rounding near 0 and 1 makes ties.

    Returns:
        The AUC; NaN if the labels are of one class.

    Raises:
        InputError: If a prediction is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.

    Numerics:
        Pairs are counted in int64, so one division is all that rounds.

    Cost:
        O(n log n).
    """
    labels, predictions = _check(labels, predictions)
    order = np.argsort(predictions)
    is_new_group = np.zeros(labels.size, bool)
    is_new_group[0] = True
    counts = _count_pairs(labels[order], predictions[order], is_new_group)
    return float(counts.auc()[0])


def auc_standard_error(
    labels: ArrayLike, predictions: ArrayLike, groups: ArrayLike
) -> float:
    """Returns the standard error of the AUC, were other groups drawn.

    A candidate moves the AUC by the share of the other class that it stands
    on the right side of (DeLong et al. 1988); those of one user are not
    independent, so they are added up first (Obuchowski 1997). It is what a
    bootstrap over groups tends to, without drawing.

    Args:
        labels: 0 or 1, `[n]`.
        predictions: Scores of any scale, `[n]`.
        groups: Group of each candidate, such as its user, `[n]`.

    Returns:
        The standard error; NaN if the labels are of one class or all of one
        group.

    Raises:
        InputError: If a prediction is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.

    Cost:
        O(n log n).
    """
    labels, predictions = _check(labels, predictions)
    _check_shape("groups", np.asarray(groups), labels)
    _, group = np.unique(groups, return_inverse=True)
    num_groups = int(group.max()) + 1
    num_positives = int(labels.sum())
    num_negatives = labels.size - num_positives
    if num_groups == 1 or not num_positives or not num_negatives:
        return math.nan
    _, run = np.unique(predictions, return_inverse=True)
    positives = np.bincount(run, labels)
    negatives = np.bincount(run, ~labels)
    below = np.cumsum(negatives) - negatives / 2
    above = num_positives - np.cumsum(positives) + positives / 2
    right = np.where(
        labels, below[run] / num_negatives, above[run] / num_positives
    )
    share = np.where(labels, num_positives, num_negatives)
    moved = np.bincount(group, (right - auc(labels, predictions)) / share)
    variance = num_groups / (num_groups - 1) * np.square(moved).sum()
    return math.sqrt(variance)


def gauc(
    labels: ArrayLike,
    predictions: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting = "samples",
    min_size: int = 1,
) -> GroupedAUC:
    """Returns the mean of the AUCs of groups, such as users or requests.

    Args:
        labels: 0 or 1, `[n]`.
        predictions: Scores of any scale, `[n]`.
        groups: Group of each candidate, in any order, `[n]`.
        weighting: Weight of a group: "samples" for its candidates,
            "positives" for its clicks, "none" for 1.
        min_size: Groups of fewer candidates are left out, and not counted.

    Raises:
        InputError: If a prediction is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ or the weighting is unknown.

    Cost:
        O(n log n).
    """
    labels, predictions = _check(labels, predictions)
    groups = np.asarray(groups)
    _check_shape("groups", groups, labels)
    order = np.lexsort((predictions, groups))
    groups = groups[order]
    is_new_group = np.ones(groups.size, bool)
    is_new_group[1:] = groups[1:] != groups[:-1]
    counts = _count_pairs(labels[order], predictions[order], is_new_group)

    is_group = counts.positives + counts.negatives >= min_size
    keep = is_group & (counts.positives > 0) & (counts.negatives > 0)
    num_groups = int(keep.sum())
    weights = _group_weights(counts, weighting)[keep]
    value = (
        float(np.average(counts.auc()[keep], weights=weights))
        if num_groups
        else math.nan
    )
    return GroupedAUC(
        value=value,
        num_groups=num_groups,
        num_groups_skipped=int(is_group.sum()) - num_groups,
    )


def log_loss(
    labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Returns the mean binary cross-entropy.

    Args:
        labels: 0 or 1, `[n]`.
        logits: Scores before the sigmoid, `[n]`. From probabilities the loss
            would be infinite as soon as one rounds to 0 or 1.
        weights: What each counts for, `[n]`; the same, if not given.

    Raises:
        InputError: If a logit is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.
    """
    labels, logits = _check(labels, logits)
    logits = logits.astype(np.float64)
    losses = np.logaddexp(0.0, np.where(labels, -logits, logits))
    return _mean(losses, weights)


def normalized_entropy(
    labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Returns the log loss over that of the mean label as every prediction.

    Args:
        labels: 0 or 1, `[n]`.
        logits: Scores before the sigmoid, `[n]`.
        weights: What each counts for, `[n]`; the same, if not given.

    Returns:
        Below 1 for what is better than the mean; NaN for labels of one class.

    Raises:
        InputError: If a logit is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.
    """
    loss = log_loss(labels, logits, weights)
    mean = _mean(np.asarray(labels, np.float64), weights)
    if mean in (0.0, 1.0):
        return math.nan
    entropy = -mean * math.log(mean) - (1.0 - mean) * math.log1p(-mean)
    return loss / entropy


def calibration(
    labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Returns mean prediction / mean label; NaN if there is no click.

    Args:
        labels: 0 or 1, `[n]`.
        logits: Scores before the sigmoid, `[n]`.
        weights: What each counts for, `[n]`; the same, if not given.

    Raises:
        InputError: If a logit is NaN, a label is not 0 or 1, or n is 0.
        ValueError: If the shapes differ.
    """
    labels, logits = _check(labels, logits)
    if not labels.any():
        return math.nan
    probabilities = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return _mean(probabilities, weights) / _mean(labels, weights)


def _mean(values: NDArray[Any], weights: ArrayLike | None) -> float:
    if weights is None:
        return float(values.mean())
    return float(np.average(values, weights=np.asarray(weights, np.float64)))


def relative_improvement(auc: float, base_auc: float) -> float:
    """Returns RelaImpr = (AUC - 0.5) / (AUC_base - 0.5) - 1.

    Raises:
        ValueError: If `base_auc` is not above 0.5, which nothing can be
            better than by a share, or above 1.
    """
    if not 0.5 < base_auc <= 1.0:
        raise ValueError(
            "`base_auc` must be above 0.5 and at most 1. "
            f"Received: base_auc={base_auc}"
        )
    return (auc - 0.5) / (base_auc - 0.5) - 1.0


@dataclasses.dataclass(frozen=True)
class _PairCounts:
    """Counts of each group, int64 `[num_groups]`."""

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    # Pairs in the right order; doubled, since a tie is worth one half.
    doubled_concordant: NDArray[np.int64]

    def auc(self) -> NDArray[np.float64]:
        """Returns each group's AUC; NaN for groups of one class."""
        pairs = self.positives * self.negatives
        result = np.full(pairs.size, np.nan)
        np.divide(
            self.doubled_concordant, 2 * pairs, out=result, where=pairs > 0
        )
        return result


def _count_pairs(
    labels: NDArray[np.bool_],
    predictions: NDArray[Any],
    is_new_group: NDArray[np.bool_],
) -> _PairCounts:
    """Counts from rows sorted by group, then by prediction."""
    is_new_run = is_new_group.copy()  # A run is a group's rows that tie.
    is_new_run[1:] |= predictions[1:] != predictions[:-1]
    run_starts = np.flatnonzero(is_new_run)
    group_starts = np.flatnonzero(is_new_group[run_starts])

    positives = np.add.reduceat(labels, run_starts, dtype=np.int64)
    negatives = np.diff(run_starts, append=labels.size) - positives
    below = np.cumsum(negatives) - negatives
    runs_in_group = np.diff(group_starts, append=run_starts.size)
    below -= np.repeat(below[group_starts], runs_in_group)
    doubled = positives * (2 * below + negatives)
    return _PairCounts(
        positives=np.add.reduceat(positives, group_starts),
        negatives=np.add.reduceat(negatives, group_starts),
        doubled_concordant=np.add.reduceat(doubled, group_starts),
    )


def _group_weights(
    counts: _PairCounts, weighting: Weighting
) -> NDArray[np.int64]:
    if weighting == "samples":
        return counts.positives + counts.negatives
    if weighting == "positives":
        return counts.positives
    if weighting == "none":
        return np.ones_like(counts.positives)
    raise ValueError(
        '`weighting` must be "samples", "positives" or "none". '
        f"Received: weighting={weighting!r}"
    )


def _check(
    labels: ArrayLike, predictions: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1:
        raise ValueError(
            f"`labels` must be flat. Received: labels.shape={labels.shape}"
        )
    _check_shape("predictions", predictions, labels)
    if not labels.size:
        raise InputError("There is no candidate to measure.")
    if not ((labels == 0) | (labels == 1)).all():
        raise InputError("Labels must be 0 or 1.")
    num_nan = int(np.isnan(predictions).sum())
    if num_nan:
        raise InputError(
            f"{num_nan} of {predictions.size} predictions are NaN."
        )
    return labels.astype(bool), predictions


def _check_shape(name: str, array: NDArray[Any], labels: NDArray[Any]) -> None:
    if array.shape != labels.shape:
        raise ValueError(
            f"`{name}` must have the shape of `labels`, {labels.shape}. "
            f"Received: {name}.shape={array.shape}"
        )
