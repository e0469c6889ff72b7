"""Sparse attentions beside EvoAttention, for one request.

Arguments and results are those of `full_attention`; see `attention.py`.

Axes: L history length, C candidates, N = L + C, d width, H heads.
"""

import datetime
import math
from collections.abc import Sequence

import numpy as np

from configs.models.sparse_ctr import SparseCTRRecipe
from tests.reference.attention import (
    Array,
    Weights,
    attend,
    query_times_of,
    rel_temporal,
)


def _known(
    n: int, behavior_times: Sequence[int], positions: Sequence[int]
) -> list[int]:
    """Those of some positions that are behaviours at or before query n."""
    length = len(behavior_times)
    last = min(n, length - 1)
    if n < length and behavior_times[n] == 0:
        return []
    return sorted(
        {j for j in positions if 0 <= j <= last and behavior_times[j] != 0}
    )


def dilated_attention(
    block: Weights,
    sequence: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Every s-th behaviour; of the first heads, the newest ones instead.

    A candidate counts from the newest behaviour.
    """
    length = len(behavior_times)
    num_keys = config.num_keys
    stride = math.ceil(config.longest_history / num_keys)
    behaviors = sequence[:length]
    times = query_times_of(behavior_times, request_time, len(sequence))
    strided, local = [], []
    for n in range(len(sequence)):
        last = min(n, length - 1)
        back = range(num_keys)
        strided.append(
            _known(n, behavior_times, [last - stride * k for k in back])
        )
        near = range(min(stride, num_keys))
        local.append(_known(n, behavior_times, [last - k for k in near]))
    heads = [
        attend(
            sequence @ block["query"],
            behaviors @ block["key"],
            behaviors @ block["value"],
            times,
            times[:length],
            visible,
            rel_temporal(block, config, zone),
            config.num_heads,
        )
        for visible in (local, strided)
    ]
    head_width = sequence.shape[1] // config.num_heads
    split = config.num_local_heads * head_width
    merged = np.concatenate([heads[0][:, :split], heads[1][:, split:]], axis=1)
    return merged @ block["output"]


def semi_local_attention(
    block: Weights,
    sequence: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """The first k2 behaviours and the last k1.

    A candidate reads what the newest behaviour reads, or everything.
    """
    length = len(behavior_times)
    behaviors = sequence[:length]
    times = query_times_of(behavior_times, request_time, len(sequence))
    first = sum(1 for time in behavior_times if time == 0)
    visible = []
    for n in range(len(sequence)):
        p = min(n, length - 1) - first
        ends = [
            *range(min(config.num_first, p + 1)),
            *range(max(config.num_first, p - config.num_recent + 1), p + 1),
        ]
        if n >= length and config.semi_local_candidates == "all":
            ends = [*range(length)]
        visible.append(_known(n, behavior_times, [first + q for q in ends]))
    heads = attend(
        sequence @ block["query"],
        behaviors @ block["key"],
        behaviors @ block["value"],
        times,
        times[:length],
        visible,
        rel_temporal(block, config, zone),
        config.num_heads,
    )
    return heads @ block["output"]


def linformer_attention(
    block: Weights,
    sequence: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Sums of the behaviours are the keys, whatever their times.

    Weights of its own: key_sums, value_sums `[M, k]`.
    """
    del zone
    length = len(behavior_times)
    keys, values = block["key_sums"], block["value_sums"]
    key_sums, value_sums = (
        np.zeros((config.num_keys, sequence.shape[1])) for _ in range(2)
    )
    for j in range(length):
        # The newest behaviour has the last weight.
        place = config.longest_history - (length - j)
        if place < 0 or behavior_times[j] == 0:
            continue
        for k in range(config.num_keys):
            key_sums[k] += keys[place, k] * (sequence[j] @ block["key"])
            value_sums[k] += values[place, k] * (sequence[j] @ block["value"])
    times = query_times_of(behavior_times, request_time, len(sequence))
    has_history = any(time != 0 for time in behavior_times)
    visible = [[*range(config.num_keys)] if has_history else []] * len(times)
    heads = attend(
        sequence @ block["query"],
        key_sums,
        value_sums,
        times,
        [None] * config.num_keys,
        visible,
        lambda query_time, key_time: np.zeros(config.num_heads),
        config.num_heads,
    )
    return heads @ block["output"]
