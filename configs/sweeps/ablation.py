"""What each part of the model earns (the paper's Table 3).

Command: `python -m benchmarks.sweep --sweep=ablation --data_dir=STORE`
"""

from configs.sweep import Sweep

SWEEP = Sweep(
    question="Which parts of attention and encoding earn their place?",
    variants={
        "sparse_ctr": (),
        "A1-full-attention": ("--model.attention=full",),
        "B1-no-bias": ("--model.encoding=none",),
    },
    datasets=("alibaba", "eleme", "kuairand", "ebnerd", "completejourney"),
)
