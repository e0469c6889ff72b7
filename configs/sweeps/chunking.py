"""Where to cut a history (Figure 2).

Command: `python -m benchmarks.sweep --sweep=chunking --data_dir=STORE`
"""

from configs.sweep import MAX_HISTORY, Sweep

SWEEP = Sweep(
    question="Where should a history be cut?",
    variants={
        "time": (),
        "similarity": ("--model.chunking=similarity",),
        "fixed": (
            "--model.chunking=fixed",
            f"--model.max_history={MAX_HISTORY}",
        ),
        "balanced": ("--model.chunking=balanced",),
    },
    datasets=("alibaba", "eleme", "kuairand", "ebnerd", "completejourney"),
    cost="train_seconds",
)
