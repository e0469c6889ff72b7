"""What each part of the model earns (the paper's Table 3).

Command: `python -m benchmarks.sweep --sweep=ablation --data_dir=STORE`

The local branch has the user's key, so that A4 goes without the user until
the prediction layer.
"""

from configs.sweep import Sweep

SWEEP = Sweep(
    question="Which parts of attention and encoding earn their place?",
    variants={
        "sparse_ctr": (),
        "A1-full-attention": ("--model.attention=full",),
        "A2-no-global": ("--model.branches=transition,local",),
        "A3-no-transition": ("--model.branches=global,local",),
        "A4-no-local": ("--model.branches=global,transition",),
        "B1-no-bias": ("--model.encoding=none",),
        "B2-no-time": ("--model.temporal_biases=hour,weekend",),
        "B3-no-hour": ("--model.temporal_biases=time,weekend",),
        "B4-no-weekend": ("--model.temporal_biases=time,hour",),
    },
    datasets=("alibaba", "eleme", "kuairand", "ebnerd", "completejourney"),
)
