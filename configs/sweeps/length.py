"""How much of a history is worth reading.

Command: `python -m benchmarks.sweep --sweep=length --data_dir=STORE`

Most people of a data set may have fewer behaviors than the longest length:
`python -m data_pipelines.describe` says how many.
"""

from configs.sweep import Sweep

SWEEP = Sweep(
    question="How much of a history is worth reading?",
    variants={
        str(length): (f"--data.max_history={length}",)
        for length in (64, 128, 256, 512, 1024)
    },
    datasets=("alibaba", "eleme", "completejourney"),
)
