"""What times and positions should do to the logits (Figure 2).

Command: `python -m benchmarks.sweep --sweep=encoding --data_dir=STORE`
"""

from configs.sweep import MAX_HISTORY, Sweep

SWEEP = Sweep(
    question="Which encoding of times and positions earns its cost?",
    variants={
        "rel_temporal": (),
        "none": ("--model.encoding=none",),
        "hstu": (
            "--model.encoding=hstu",
            f"--model.max_history={MAX_HISTORY}",
        ),
        "t5": ("--model.encoding=t5",),
        "alibi": ("--model.encoding=alibi",),
        "rope": ("--model.encoding=rope",),
        "t_rope_relative": ("--model.encoding=t_rope_relative",),
        "t_rope_published": ("--model.encoding=t_rope_published",),
    },
    datasets=("alibaba", "eleme", "kuairand", "ebnerd", "completejourney"),
    cost="train_seconds",
)
