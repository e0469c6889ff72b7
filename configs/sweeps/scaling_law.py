"""AUC as a power law of operations: four sizes by four lengths (Figure 4).

Command: `python -m benchmarks.sweep --sweep=scaling_law --data_dir=STORE`

Lengths are the paper's. It does not tell its sizes; these span three orders
of magnitude of operations together with the lengths, and leave the embedding
tables alike, since its sizes count what is not embedding.
"""

from configs.sweep import Sweep

_SIZES = {
    # Width, heads, blocks. Of the last block candidates alone are computed.
    "small": (16, 4, 2),
    "base": (32, 8, 2),
    "large": (64, 8, 3),
    "huge": (128, 16, 4),
}
_LENGTHS = (128, 256, 512, 1024)

SWEEP = Sweep(
    question="Does AUC grow with operations as a power law?",
    variants={
        f"{name}-{length}": (
            f"--model.width={width}",
            f"--model.num_heads={num_heads}",
            f"--model.num_blocks={num_blocks}",
            f"--data.max_history={length}",
        )
        for name, (width, num_heads, num_blocks) in _SIZES.items()
        for length in _LENGTHS
    },
    datasets=("alibaba", "eleme", "completejourney"),
    fits_power_law=True,
)
