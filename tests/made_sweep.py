"""Runs of a sweep that nobody trained: AUC by a known power law, and noise."""

from typing import Any

import numpy as np

LIMIT, SCALE = 0.75, 0.03
"""E, and A at the fewest operations."""

LENGTHS = (128, 256, 512, 1024)
SIZES = (3_000, 9_000, 40_000, 200_000)

NUM_RESAMPLES = 20


def flops_of(size: int, length: int) -> float:
    """Returns operations of the size and the length of these numbers."""
    return 1e6 * 4.7**size * 1.9**length


def power_law(exponent: float, flops: Any) -> Any:
    """Returns E - A / X^alpha."""
    return LIMIT - SCALE * (flops_of(0, 0) / flops) ** exponent


def made_runs(
    exponent: float,
    *,
    noise: float,
    num_seeds: int,
    seed: int = 0,
    rise: float = 1.0,
    by: str | None = None,
) -> dict[str, Any]:
    """Returns runs of four sizes by four lengths.

    Args:
        exponent: alpha.
        noise: Standard deviation that every run has of its own.
        num_seeds: Runs of each variant.
        seed: Of the noise.
        rise: What the rise above the least AUC is multiplied with.
        by: "length" or "size" if AUC rises by that alone.
    """
    generator = np.random.default_rng(seed)
    # What drawing users changes is the same for all runs.
    users = generator.normal(scale=3e-3, size=NUM_RESAMPLES)
    runs: dict[str, Any] = {}
    for s, size in enumerate(SIZES):
        for n, length in enumerate(LENGTHS):
            flops = flops_of(
                s if by != "length" else 0, n if by != "size" else 0
            )
            least = LIMIT - SCALE
            mean = least + rise * (power_law(exponent, flops) - least)
            of_variant = runs[f"{size}-{length}"] = {}
            for number in range(num_seeds):
                auc = float(mean + generator.normal(scale=noise))
                of_variant[str(number)] = {
                    "metrics": {"auc": auc},
                    "num_parameters": {"dense": size},
                    "max_history": length,
                    "flops": flops_of(s, n),
                    "resampled_aucs": (auc + users).tolist(),
                }
    return runs
