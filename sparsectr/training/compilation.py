"""Which shapes of a run are worth compiling."""

import collections
from typing import NamedTuple

from data_pipelines.reading.batches import Batches

_COUNTED_STEPS = 20_000
"""Of a longer run, so many steps stand for all."""


class Shape(NamedTuple):
    """The size of a step's batch, beside its number of requests.

    Attributes:
        length: L, the padded length of its histories.
        num_candidates: C, the padded number of its candidates.
    """

    length: int
    num_candidates: int

    def __str__(self) -> str:
        return f"{self.length} behaviors, {self.num_candidates} candidates"


def worth_compiling(
    batches: Batches, num_steps: int, least_steps: int
) -> frozenset[Shape]:
    """Returns the shapes that occur in so many steps of a run.

    The compiler takes seconds for each shape, whatever it is used for. The
    answer depends on the run as a whole: a resumed one compiles what it would
    have compiled.

    Args:
        batches: Of the run.
        num_steps: Steps of the whole run.
        least_steps: Steps that repay the compilation of a shape.

    Cost:
        Looks at up to 20,000 steps, some 50 microseconds each.
    """
    counted = min(num_steps, _COUNTED_STEPS)
    found = collections.Counter(
        Shape(*batches.shape(step)) for step in range(counted)
    )
    return frozenset(
        shape
        for shape, count in found.items()
        if count * num_steps >= least_steps * counted
    )
