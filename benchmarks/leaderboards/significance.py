"""Whether one model is ahead of others, by runs of the same seeds."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A paired t-test over seeds.

    Args:
        difference: Mean of first minus second.
        standard_error: That of the mean.
        num_pairs: Seeds that both have.
        p_value: Of no difference, both sides.
        corrected: The same, multiplied for the number of tests (Holm).
    """

    difference: float
    standard_error: float
    num_pairs: int
    p_value: float
    corrected: float


def paired_tests(
    first: Mapping[str, float], others: Mapping[str, Mapping[str, float]]
) -> dict[str, PairedTest]:
    """Tests one model against each of the others.

    Args:
        first: AUC by seed.
        others: Likewise, by the name of the model.

    Returns:
        A test for each with at least two seeds in common. The p-values are
        corrected by Holm's method for as many tests.
    """
    tests = {}
    for name, other in others.items():
        seeds = sorted(first.keys() & other.keys())
        if len(seeds) > 1:
            tests[name] = _test([first[s] - other[s] for s in seeds])
    ordered = sorted(tests, key=lambda name: tests[name].p_value)
    corrected = 0.0
    for place, name in enumerate(ordered):
        test = tests[name]
        corrected = max(corrected, (len(tests) - place) * test.p_value)
        tests[name] = dataclasses.replace(test, corrected=min(corrected, 1.0))
    return tests


def _test(differences: Sequence[float]) -> PairedTest:
    # Only where it is needed: SciPy is no requirement of the package.
    from scipy import stats

    mean, count = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    if error:
        p_value = float(2.0 * stats.t.sf(abs(mean) / error, count - 1))
    else:
        p_value = 1.0 if mean == 0.0 else 0.0
    return PairedTest(
        difference=mean,
        standard_error=error,
        num_pairs=count,
        p_value=p_value,
        corrected=p_value,
    )
