"""How much of the newest history candidates read, and how they weigh it.

Command: `python -m benchmarks.sweep --sweep=candidate_window --data_dir=STORE`

A softmax that has to sum to 1 cannot say how much of a history is like the
candidate, and five behaviors are not much to look at: each alone, together,
and with a head that sees more of what they give.
"""

from configs.sweep import Sweep

_SINK = "--model.sink=off_by_one"
_WIDE = "--model.head_units=512,256,128"


def _window(size: int) -> str:
    return f"--model.num_candidate_local={size}"


SWEEP = Sweep(
    question="Is a candidate served by a window of its own?",
    variants={
        "base": (),
        "window_20": (_window(20),),
        "window_50": (_window(50),),
        "off_by_one": (_SINK,),
        "off_by_one+window_20": (_SINK, _window(20)),
        "off_by_one+window_50": (_SINK, _window(50)),
        "wide_head": (_WIDE,),
        "off_by_one+wide_head": (_SINK, _WIDE),
        "off_by_one+window_50+wide_head": (_SINK, _window(50), _WIDE),
    },
    datasets=("kuairand", "ebnerd", "movielens", "completejourney"),
)
