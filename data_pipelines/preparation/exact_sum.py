"""Sums of floats that do not depend on how the floats are divided up."""

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

_MANTISSA_BITS = 53
_LOW_BITS = 26


def exact_sum(values: npt.NDArray[Any]) -> Fraction:
    """Returns the sum of finite float64 `values` without any rounding.

    A sum that rounds depends on the order of its terms, and so would mean and
    scale of a feature, and with them the store, on the number of shards.
    """
    fraction, exponent = np.frexp(values.astype(np.float64))
    mantissa = np.ldexp(fraction, _MANTISSA_BITS).astype(np.int64)
    # By power of two; NumPy sorts 16 bits in one pass over the values.
    order = np.argsort(exponent.astype(np.int16), kind="stable")
    exponent, mantissa = exponent[order], mantissa[order]
    start = np.flatnonzero(np.diff(exponent, prepend=exponent[:1] - 1))
    total = Fraction(0)
    if not len(start):
        return total
    # Halves of 27 bits, so that int64 holds the sums of 2^36 of them.
    high = np.add.reduceat(mantissa >> _LOW_BITS, start).tolist()
    low = np.add.reduceat(mantissa & ((1 << _LOW_BITS) - 1), start).tolist()
    for power, *halves in zip(exponent[start].tolist(), high, low, strict=True):
        part = (halves[0] << _LOW_BITS) + halves[1]
        total += part * Fraction(2) ** (power - _MANTISSA_BITS)
    return total


def exact_sum_of_squares(values: npt.NDArray[Any]) -> Fraction:
    """Returns the sum of the squares of finite `values` without rounding.

    Rounded squares can lose all of a small spread around a large mean.
    """
    values = values.astype(np.float64)
    # Veltkamp's split: halves of 26 bits, whose products are exact.
    scaled = values * (2.0**27 + 1.0)
    high = scaled - (scaled - values)
    low = values - high
    return (
        exact_sum(high * high)
        + 2 * exact_sum(high * low)
        + exact_sum(low * low)
    )
