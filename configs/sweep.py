"""What a sweep is: one recipe, named variants of it, and what they cost."""

import dataclasses
from collections.abc import Mapping

from sparsectr.config_fields import require

MAX_HISTORY = "{max_history}"
"""In a flag, the run's own `--data.max_history`: what a model sizes by the
longest history fits every data set then."""

COSTS = ("flops", "train_seconds", "dense_parameters", "state_bytes")
"""What may stand beside the AUC of a variant."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Variants of one recipe, trained by `python -m benchmarks.sweep`.

    Args:
        question: What it answers, in a sentence.
        variants: Flags of each variant by its name, the base first.
        flags: Flags of every variant.
        seeds: Seeds of a screen.
        datasets: Data sets that it is meant for.
        cost: What a variant is weighed against, one of `COSTS`.
        fits_power_law: Whether AUC is fitted as a function of operations.
    """

    question: str
    variants: Mapping[str, tuple[str, ...]]
    datasets: tuple[str, ...]
    flags: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    cost: str = "flops"
    fits_power_law: bool = False

    def __post_init__(self) -> None:
        require(len(self.variants) > 1, "variants", "be two or more", "fewer")
        require(
            self.cost in COSTS,
            "cost",
            f"be one of {', '.join(COSTS)}",
            self.cost,
        )
