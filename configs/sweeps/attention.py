"""What EvoAttention is better than, at the same 53 keys a query (Figure 2).

Command: `python -m benchmarks.sweep --sweep=attention --data_dir=STORE`
"""

from configs.sweep import MAX_HISTORY, Sweep

_LONGEST = f"--model.longest_history={MAX_HISTORY}"

SWEEP = Sweep(
    question="Which attention earns its cost?",
    variants={
        "evo": (),
        "full": ("--model.attention=full",),
        "dilated": ("--model.attention=dilated", _LONGEST),
        "semi_local": ("--model.attention=semi_local",),
        # Its keys stand at no time, so that no encoding is possible.
        "linformer": (
            "--model.attention=linformer",
            "--model.encoding=none",
            _LONGEST,
        ),
        "nsa": ("--model.attention=nsa", _LONGEST),
    },
    datasets=("alibaba", "eleme", "kuairand", "completejourney"),
    cost="train_seconds",
)
