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
    batches: Batches, num_steps: int, least_rows: int
) -> frozenset[Shape]:
    """Returns the shapes that a run has enough rows of.

    The compiler takes seconds for each shape, whatever it is used for, and
    what a compiled step saves grows with its padded rows. The answer depends
    on the run as a whole: a resumed one compiles what it would have compiled.

    Args:
        batches: Of the run.
        num_steps: Steps of the whole run.
        least_rows: Padded behaviours and candidates, over all requests and
            steps of a shape, that repay its compilation.

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
        if count * batches.batch_size * sum(shape) * num_steps
        >= least_rows * counted
    )
