"""How many keys a query needs (Figure 3).

Command: `python -m benchmarks.sweep --sweep=sparsity --data_dir=STORE`
"""

from configs.sweep import Sweep

SWEEP = Sweep(
    question="How many keys does a query need?",
    variants={
        "sparsity-2": ("--model.preset=sparsity-2",),
        "sparsity-1": ("--model.preset=sparsity-1",),
        "sparsity-3": ("--model.preset=sparsity-3",),
        "sparsity-4": ("--model.preset=sparsity-4",),
        "full": ("--model.attention=full",),
    },
    datasets=("alibaba", "eleme", "completejourney"),
    cost="state_bytes",
)
