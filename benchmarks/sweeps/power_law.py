"""AUC as a power law of operations, and whether the data know its constants.

    AUC(X) = E - A / X^alpha

Fitted is the same family in a form that has no hole at alpha = 0, where it is
a logarithm: c + b (1 - x^-alpha) / alpha, with x = X over its geometric mean,
E = c + b / alpha and A = (b / alpha) mean^alpha. For an alpha, c and b are
linear least squares; alpha is searched on a grid and then refined. An interval
of alpha that holds 0 is thus one of AUCs that may have no limit at all.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboards.bootstrap import interval

Array = npt.NDArray[Any]

STEEPEST = 3.0
"""Largest exponent that is searched, of either sign. At 3 all but the first
doubling is without effect: no experiment tells larger ones apart."""

_STEP = 0.01
_LEAST_POINTS = 5
_MOST_RATIO = 10.0


class PowerLaw(NamedTuple):
    """A fitted law.

    Attributes:
        exponent: alpha.
        limit: E.
        scale: A.
        r_squared: Coefficient of determination.
    """

    exponent: float
    limit: float
    scale: float
    r_squared: float

    def auc(self, flops: Array) -> Array:
        """Returns AUC(X)."""
        return self.limit - self.scale * np.power(flops, -self.exponent)


class FittedLaw(NamedTuple):
    """A law, how well it is known, and whether it is known at all.

    Attributes:
        law: The law.
        exponent: 95 % interval of alpha.
        limit: That of E.
        scale: That of A.
        curves: AUC at the points by the law of every bootstrap sample.
        unknown_because: Why the constants are not identifiable; `None` if
            they are.
    """

    law: PowerLaw
    exponent: tuple[float, float]
    limit: tuple[float, float]
    scale: tuple[float, float]
    curves: Array
    unknown_because: str | None


def fit(flops: Array, auc: Array) -> PowerLaw:
    """Returns the law of least squares.

    Args:
        flops: X `[n]`, at least three different ones.
        auc: `[n]`.
    """
    # Only where it is needed: SciPy is no requirement of the package.
    from scipy import optimize

    grid = _grid()
    best = grid[np.argmin(_squares(flops, auc[np.newaxis], grid)[:, 0])]
    found = optimize.minimize_scalar(
        lambda exponent: float(
            _squares(flops, auc[np.newaxis], np.array([exponent]))[0, 0]
        ),
        bounds=(best - _STEP, best + _STEP),
        method="bounded",
        options={"xatol": 1e-8},
    )
    exponent = float(found.x) or _STEP * 1e-6
    limit, scale = _constants(flops, auc, exponent)
    residual = auc - (limit - scale * np.power(flops, -exponent))
    total = np.sum((auc - auc.mean()) ** 2)
    r_squared = 1.0 - np.sum(residual**2) / total if total else 0.0
    return PowerLaw(exponent, float(limit), float(scale), float(r_squared))


def fit_with_intervals(flops: Array, auc: Array, drawn: Array) -> FittedLaw:
    """Returns a law and the intervals of its constants.

    A bootstrap sample is the law's AUCs, plus what a draw of seeds and users
    changes, plus residuals that are drawn again. With several seeds the last
    two count what seeds change twice: intervals are rather too wide.

    Args:
        flops: X `[n]`.
        auc: `[n]`.
        drawn: `[draws, n]`, AUCs of drawn seeds and users.

    Raises:
        ValueError: If there are fewer than five points.
    """
    if len(np.unique(flops)) < _LEAST_POINTS:
        raise ValueError(
            f"`flops` must have {_LEAST_POINTS} different values or more. "
            f"Received: {len(np.unique(flops))}"
        )
    law = fit(flops, auc)
    residual = (auc - law.auc(flops)) * np.sqrt(len(auc) / (len(auc) - 3.0))
    generator = np.random.default_rng(0)
    samples = law.auc(flops) + (drawn - auc)
    samples += generator.choice(residual, samples.shape)
    grid = _grid()
    exponents = grid[np.argmin(_squares(flops, samples, grid), axis=0)]
    constants = np.array(
        [
            _constants(flops, sample, exponent)
            for sample, exponent in zip(samples, exponents, strict=True)
        ]
    )
    limits, scales = constants.T
    curves = limits[:, np.newaxis] - scales[:, np.newaxis] * np.power(
        flops, -exponents[:, np.newaxis]
    )
    return FittedLaw(
        law,
        interval(exponents),
        interval(limits),
        interval(scales),
        curves,
        _unknown_because(interval(exponents), curves, flops),
    )


def _unknown_because(
    exponent: tuple[float, float], curves: Array, flops: Array
) -> str | None:
    """Returns why the constants are not known, `None` if they are."""
    low, high = exponent
    rises = curves[:, np.argmax(flops)] - curves[:, np.argmin(flops)]
    if interval(rises)[0] <= 0.0:
        return "AUC does not rise with operations for certain"
    if low <= 0.0:
        return "the interval of alpha holds 0, where AUC has no limit"
    if high >= STEEPEST - _STEP or high > _MOST_RATIO * low:
        return "the interval of alpha is huge"
    return None


def _grid() -> Array:
    """Returns the exponents that are searched; none of them is 0."""
    half = np.arange(_STEP / 2.0, STEEPEST, _STEP)
    return np.concatenate([-half[::-1], half])


def _design(flops: Array, exponent: float) -> Array:
    """Returns what c and b are multiplied with, `[n, 2]`."""
    mean = np.exp(np.mean(np.log(flops)))
    x = np.log(flops / mean)
    return np.stack([np.ones_like(x), -np.expm1(-exponent * x) / exponent], 1)


def _squares(flops: Array, samples: Array, exponents: Array) -> Array:
    """Returns sums of squared residuals, `[exponents, samples]`."""
    # Without their mean, so that nothing is lost where they are subtracted.
    centered = samples - samples.mean(axis=1, keepdims=True)
    found = []
    for exponent in exponents:
        basis, _ = np.linalg.qr(_design(flops, exponent))
        residual = centered - (centered @ basis) @ basis.T
        found.append(np.sum(residual**2, axis=1))
    return np.array(found)


def _constants(flops: Array, auc: Array, exponent: float) -> Array:
    """Returns E and A of an exponent."""
    (c, b), *_ = np.linalg.lstsq(_design(flops, exponent), auc, rcond=None)
    mean_log = float(np.mean(np.log(flops)))
    scale = b / exponent
    return np.array([c + scale, scale * np.exp(exponent * mean_log)])
