import sys
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np

from data_pipelines.preparation.exact_sum import exact_sum

_NASTY = st.sampled_from(
    [
        0.0,
        -0.0,
        0.1,
        1.0,
        -1.0,
        1e308,
        -1e308,
        1e16,
        -1e16,
        1 + sys.float_info.epsilon,
        sys.float_info.max,
        -sys.float_info.max,
        sys.float_info.min,
        5e-324,
        -5e-324,
    ]
)
_values = st.lists(
    _NASTY | st.floats(allow_nan=False, allow_infinity=False), max_size=40
)


@hypothesis.given(values=_values, place=st.integers(0, 40), seed=st.integers(0))
def test_equals_the_sum_of_fractions(
    values: list[float], place: int, seed: int
) -> None:
    expected = sum(map(Fraction, values), Fraction(0))
    array = np.array(values, np.float64)
    assert exact_sum(array) == expected
    assert exact_sum(array[:place]) + exact_sum(array[place:]) == expected
    shuffled = np.random.default_rng(seed).permutation(array)
    assert exact_sum(shuffled) == expected


def test_many_values() -> None:
    # Their mantissas have all bits set: int64 would not hold the sum of 2048.
    largest = np.full(300_000, 2.0 - 2.0**-52)
    assert exact_sum(largest) == 300_000 * (2 - Fraction(1, 2**52))
    assert exact_sum(-largest) == -300_000 * (2 - Fraction(1, 2**52))
    tenths = np.full(100_001, 0.1)
    assert exact_sum(tenths) == 100_001 * Fraction(0.1)
    assert exact_sum(tenths) != Fraction(float(tenths.sum()))


def test_float32_is_taken_as_it_is() -> None:
    values = np.array([0.1, 1e-30, 3e38], np.float32)
    assert exact_sum(values) == sum(Fraction(v.item()) for v in values)
