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
    output_gate,
    query_times_of,
    rel_temporal,
    softmax,
)
from tests.reference.times import chunk_time


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
    opened = output_gate(block, merged, sequence, config)
    return opened @ block["output"]


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
    opened = output_gate(block, heads, sequence, config)
    return opened @ block["output"]


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
    opened = output_gate(block, heads, sequence, config)
    return opened @ block["output"]


def native_sparse_attention(
    block: Weights,
    sequence: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Compressed blocks, selected blocks and a window, with a gate each.

    Weights of its own: key_compression, value_compression: {hidden [d, d],
    row_positions [l, d], output [d, d]}, window_key, window_value [d, d],
    branch_gates: {kernel [d, 3 H], bias}. All positions count from the newest
    behaviour, which is 0.
    """
    length, num_heads = len(behavior_times), config.num_heads
    times = query_times_of(behavior_times, request_time, len(sequence))
    behaviors, bias = sequence[:length], rel_temporal(block, config, zone)
    queries = sequence @ block["query"]

    members = compressed_members(behavior_times, config)
    summaries = [
        np.array([compress(block[name], behaviors, rows) for rows in members])
        for name in ("key_compression", "value_compression")
    ]
    mean_times = [
        chunk_time([behavior_times[j] for _, j in rows]) for rows in members
    ]
    ended = [
        [
            number
            for number, rows in enumerate(members)
            if times[n] != 0 and rows[-1][1] <= min(n, length - 1)
        ]
        for n in range(len(sequence))
    ]
    outputs = np.zeros((3, *sequence.shape))
    if members:
        outputs[0] = attend(
            queries, *summaries, times, mean_times, ended, bias, num_heads
        )
    selected = []
    for n in range(len(sequence)):
        probabilities = np.zeros(len(members))
        for h in range(num_heads):
            columns = slice(
                h * sequence.shape[1] // num_heads,
                (h + 1) * sequence.shape[1] // num_heads,
            )
            logits = [
                float(np.dot(queries[n, columns], summaries[0][m, columns]))
                / math.sqrt(sequence.shape[1] // num_heads)
                + bias(times[n], mean_times[m])[h]
                for m in ended[n]
            ]
            if logits:
                probabilities[ended[n]] += softmax(np.array(logits))
        rows = selected_members(
            n, behavior_times, members, probabilities, config
        )
        selected.append(_known(n, behavior_times, rows))
    near = range(config.num_local)
    windows = [
        _known(n, behavior_times, [min(n, length - 1) - k for k in near])
        for n in range(len(sequence))
    ]
    for branch, prefix, visible in ((1, "", selected), (2, "window_", windows)):
        outputs[branch] = attend(
            queries,
            behaviors @ block[f"{prefix}key"],
            behaviors @ block[f"{prefix}value"],
            times,
            times[:length],
            visible,
            bias,
            num_heads,
        )
    gates = sequence @ block["branch_gates"]["kernel"]
    gates = 1.0 / (1.0 + np.exp(-gates - block["branch_gates"]["bias"]))
    gates = gates.reshape(len(sequence), num_heads, 3)
    fused = np.zeros_like(sequence)
    head_width = sequence.shape[1] // num_heads
    for h in range(num_heads):
        columns = slice(h * head_width, (h + 1) * head_width)
        for branch in range(3):
            fused[:, columns] += (
                gates[:, h, branch, None] * outputs[branch][:, columns]
            )
    opened = output_gate(block, fused, sequence, config)
    return opened @ block["output"]


def compressed_members(
    behavior_times: Sequence[int], config: SparseCTRRecipe
) -> list[list[tuple[int, int]]]:
    """(place in the block, index) of each behaviour of each block.

    The newest block first; empty ones are left out.
    """
    length, blocks, start = len(behavior_times), [], 0
    while start == 0 or start + config.nsa_block - config.nsa_stride < (
        config.longest_history
    ):
        rows = []
        for place in range(config.nsa_block):
            j = length - 1 - (start + config.nsa_block - 1 - place)
            if j >= 0 and behavior_times[j] != 0:
                rows.append((place, j))
        if rows:
            blocks.append(rows)
        start += config.nsa_stride
    return blocks


def compress(
    weights: Weights, behaviors: Array, rows: list[tuple[int, int]]
) -> Array:
    """One row for a block."""
    hidden = [
        np.maximum(
            behaviors[j] @ weights["hidden"] + weights["row_positions"][place],
            0.0,
        )
        for place, j in rows
    ]
    return np.mean(hidden, axis=0) @ weights["output"]


def selected_members(
    n: int,
    behavior_times: Sequence[int],
    members: list[list[tuple[int, int]]],
    probabilities: Array,
    config: SparseCTRRecipe,
) -> list[int]:
    """Indices of the behaviours in the blocks that a query selects."""
    length, size = len(behavior_times), config.nsa_selected_block
    valid = [j for j in range(length) if behavior_times[j] != 0]
    if not valid or n < valid[0]:
        return []
    back = length - 1 - min(n, length - 1)
    own, first = back // size, (length - 1 - valid[0]) // size
    forced = [own, own + 1, first][: config.nsa_num_forced]
    scores = []
    for number in range(own, first + 1):
        # Rows that a compressed block would have in common, if all were there.
        low, high = number * size, (number + 1) * size
        score = 0.0
        for rows, probability in zip(members, probabilities, strict=True):
            newest = length - 1 - rows[-1][1]
            end = newest + config.nsa_block
            score += probability * max(0, min(high, end) - max(low, newest))
        rank = forced.index(number) if number in forced else len(forced)
        scores.append((rank, -score, number))
    chosen = [number for _, _, number in sorted(scores)]
    return [
        length - 1 - position
        for number in chosen[: config.nsa_num_selected]
        for position in range(number * size, (number + 1) * size)
    ]
