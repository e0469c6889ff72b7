"""EvoAttention (3.4.2 to 3.4.5) and full attention, for one request.

Axes: L history length, C candidates, N = L + C, d width, H heads,
d_h = d / H, K keys of a branch.

The rows of padding in an output are 0 here; nothing ever reads them.
"""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.models.sparse_ctr import SparseCTRRecipe
from tests.reference.times import Time, chunk_time, temporal_bias, time_chunks

Array = NDArray[np.float64]
Weights = Mapping[str, Any]

Bias = Callable[[int, Time | None], Array]
"""(time of query, time of key) -> bias of each head [H]."""

Sink = Callable[[Array, int], tuple[float, Array]]
"""(query of a head [d_h], number of the head) -> logit and value [d_h] of what
it may read beside its keys."""


def mlp(weights: Weights, inputs: Array) -> Array:
    """Two dense layers with ReLU between them."""
    hidden = inputs @ weights["kernel_1"] + weights["bias_1"]
    return np.maximum(hidden, 0.0) @ weights["kernel_2"] + weights["bias_2"]


def softmax(logits: Array) -> Array:
    """Softmax of a vector."""
    powers = np.exp(logits - np.max(logits))
    return powers / np.sum(powers)


def rel_temporal(
    block: Weights, config: SparseCTRRecipe, zone: datetime.tzinfo
) -> Bias:
    """The bias of Eq. 15, with the block's own coefficients.

    It is 0 for a key without a time, which is the user, and everywhere in
    variant B1. Variants B2, B3 and B4 lack one of its three terms.
    """
    slopes = {
        kind: block[f"slopes_{kind}"]
        if kind in config.temporal_biases
        else np.zeros(config.num_heads)
        for kind in ("time", "hour", "weekend")
    }

    def bias(query_time: int, key_time: Time | None) -> Array:
        if key_time is None or config.encoding == "none":
            return np.zeros(config.num_heads)
        return temporal_bias(
            query_time,
            key_time,
            slopes["time"],
            slopes["hour"],
            slopes["weekend"],
            zone,
        )

    return bias


def sink_of(block: Weights, config: SparseCTRRecipe) -> Sink | None:
    """The sink of a block, `None` for none (baselines: 5.2)."""
    if config.sink == "none":
        return None
    head_width = config.width // config.num_heads

    def sink(query: Array, h: int) -> tuple[float, Array]:
        if config.sink == "key_value":
            columns = slice(h * head_width, (h + 1) * head_width)
            product = float(np.dot(query, block["sink_key"][columns]))
            value = block["sink_value"][columns]
            return product / math.sqrt(head_width), value
        is_learned = config.sink == "learned"
        logit = float(block["sink_logit"][h]) if is_learned else 0.0
        return logit, np.zeros(head_width)

    return sink


def attend(
    queries: Array,
    keys: Array,
    values: Array,
    query_times: Sequence[int],
    key_times: Sequence[Time | None],
    visible: Sequence[Sequence[int]],
    bias: Bias,
    num_heads: int,
    sink: Sink | None = None,
) -> Array:
    """Multi-head softmax attention over the keys that a query sees (Eq. 16).

    Args:
        queries: Q `[N, d]`.
        keys: `[K, d]`.
        values: `[K, d]`.
        query_times: Times of the queries `[N]`.
        key_times: Times of the keys `[K]`.
        visible: For each query the numbers of the keys that it sees.
        bias: RelTemporal.
        num_heads: H.
        sink: One more key of every query.

    Returns:
        `[N, d]`, the heads side by side. A query that sees nothing gets 0.
    """
    width = queries.shape[1]
    head_width = width // num_heads
    outputs = np.zeros((len(queries), width))
    for n, query in enumerate(queries):
        if not visible[n] and sink is None:
            continue
        for h in range(num_heads):
            columns = slice(h * head_width, (h + 1) * head_width)
            logits, read = [], []
            for k in visible[n]:
                product = float(np.dot(query[columns], keys[k, columns]))
                bias_h = bias(query_times[n], key_times[k])[h]
                logits.append(product / math.sqrt(head_width) + bias_h)
                read.append(values[k, columns])
            if sink is not None:
                logit, value = sink(query[columns], h)
                logits.append(logit)
                read.append(value)
            attention = softmax(np.array(logits))
            for weight, value in zip(attention, read, strict=True):
                outputs[n, columns] += weight * value
    return outputs


def query_times_of(
    behavior_times: Sequence[int], request_time: int, num_queries: int
) -> list[int]:
    """Times of the mixed sequence S: a candidate's is the request's."""
    num_candidates = num_queries - len(behavior_times)
    return [int(t) for t in behavior_times] + num_candidates * [
        int(request_time)
    ]


def visible_positions(
    query_times: Sequence[int], num_behaviors: int
) -> list[list[int]]:
    """Positions of the behaviours that each query may know of (3.2).

    A behaviour knows itself and the earlier ones, a candidate all of them,
    padding nothing.
    """
    positions = []
    for n, query_time in enumerate(query_times):
        if query_time == 0:
            positions.append([])
            continue
        end = min(n + 1, num_behaviors)
        positions.append([j for j in range(end) if query_times[j] != 0])
    return positions


def global_attention(
    block: Weights,
    queries: Array,
    keys: Array,
    values: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Attention over whole chunks (Eqs. 4 to 6).

    A chunk's key mixes all its members, so that a behaviour sees only the
    chunks whose last member it may know of.

    Returns:
        `[N, d]`.
    """
    times = query_times_of(behavior_times, request_time, len(queries))
    known = visible_positions(times, len(keys))
    chunks = time_chunks(behavior_times, config.num_chunks)
    chunk_keys, chunk_values, chunk_times = [], [], []
    for start, end in chunks:
        mean_key = np.mean(keys[start:end], axis=0)
        mean_value = np.mean(values[start:end], axis=0)
        chunk_keys.append(mlp(block["key_aggregate"], mean_key))  # Eq. 4
        chunk_values.append(mlp(block["value_aggregate"], mean_value))  # Eq. 5
        chunk_times.append(chunk_time(behavior_times[start:end]))
    visible = [
        [p for p, (_, end) in enumerate(chunks) if end - 1 in known[n]]
        for n in range(len(queries))
    ]
    return attend(
        queries,
        np.array(chunk_keys),
        np.array(chunk_values),
        times,
        chunk_times,
        visible,
        rel_temporal(block, config, zone),
        config.num_heads,
        sink_of(block, config),
    )  # Eq. 6


def transition_attention(
    block: Weights,
    queries: Array,
    keys: Array,
    values: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Attention over the last m behaviours of each chunk (Eq. 7).

    Returns:
        `[N, d]`.
    """
    times = query_times_of(behavior_times, request_time, len(queries))
    known = visible_positions(times, len(keys))
    transition = set()
    chunks = time_chunks(behavior_times, config.num_chunks)
    for start, end in chunks:
        transition.update(range(max(start, end - config.num_transition), end))
    visible = [
        [j for j in known[n] if j in transition] for n in range(len(queries))
    ]
    num_behaviors, key_times = len(keys), times[: len(keys)]
    for number, (start, _) in enumerate(
        chunks if config.boundary_sinks else ()
    ):
        gap_row = 0  # of the beginning
        if number > 0:
            gap = max(1, behavior_times[start] - behavior_times[start - 1])
            gap_row = int(gap).bit_length()  # 1 + floor(log2(gap))
        row, position = block["boundary_rows"][gap_row], len(keys)
        keys = np.concatenate([keys, [row @ block["key"]]])
        values = np.concatenate([values, [row @ block["value"]]])
        key_times = [*key_times, times[start]]
        for n, seen in enumerate(visible):
            if start in known[n] or n >= num_behaviors:
                seen.append(position)
    return attend(
        queries,
        keys,
        values,
        times,
        key_times,
        visible,
        rel_temporal(block, config, zone),
        config.num_heads,
        sink_of(block, config),
    )


def local_attention(
    block: Weights,
    queries: Array,
    keys: Array,
    values: Array,
    user_key: Array | None,
    user_value: Array | None,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Attention over the user and the w newest known behaviours (Eq. 8).

    Or w_c of them, for a candidate.

    And over the registers, if there are any: keys of every query, no time.

    Args:
        block: Weights of the block.
        queries: Q `[N, d]`.
        keys: K `[L, d]`.
        values: V `[L, d]`.
        user_key: `[d]`, or `None` without user fields.
        user_value: `[d]`, or `None` without user fields.
        behavior_times: `[L]`.
        request_time: Unix seconds.
        config: The model's.
        zone: Time zone that decides what a weekend is.

    Returns:
        `[N, d]`.
    """
    times = query_times_of(behavior_times, request_time, len(queries))
    known = visible_positions(times, len(keys))
    key_times: list[Time | None] = list(times[: len(keys)])
    sizes = [config.num_local] * len(keys)
    sizes += [config.num_newest] * (len(queries) - len(keys))
    visible = [
        positions[-size:] for positions, size in zip(known, sizes, strict=True)
    ]
    if user_key is not None:
        # The user is one more key, behind the behaviours and without a time.
        user_position = len(keys)
        keys = np.concatenate([keys, user_key[np.newaxis]])
        values = np.concatenate([values, user_value[np.newaxis]])
        key_times.append(None)
        visible = [
            [user_position, *window] if times[n] != 0 else []
            for n, window in enumerate(visible)
        ]
    for register in block["registers"] if config.num_registers else ():
        position = len(keys)
        keys = np.concatenate([keys, [register @ block["key"]]])
        values = np.concatenate([values, [register @ block["value"]]])
        key_times.append(None)
        visible = [[*seen, position] for seen in visible]
    return attend(
        queries,
        keys,
        values,
        times,
        key_times,
        visible,
        rel_temporal(block, config, zone),
        config.num_heads,
        sink_of(block, config),
    )


def gate(branches: Sequence[Array], weights: Array, num_heads: int) -> Array:
    """Mixes the branches inside each head (Eqs. 9 and 10).

    Args:
        branches: Outputs of global, transition and local attention, each
            `[N, d]`; variants A2, A3 and A4 lack one of them.
        weights: `[H, 3 d_h, 3]`, or `[H, 2 d_h, 2]`.
        num_heads: H.

    Returns:
        `[N, d]`.
    """
    outputs = np.zeros_like(branches[0])
    num_queries, width = outputs.shape
    head_width = width // num_heads
    for n in range(num_queries):
        for h in range(num_heads):
            columns = slice(h * head_width, (h + 1) * head_width)
            heads = [branch[n, columns] for branch in branches]
            alpha = softmax(np.concatenate(heads) @ weights[h])  # Eq. 9
            for alpha_i, head in zip(alpha, heads, strict=True):
                outputs[n, columns] += alpha_i * head  # Eq. 10
    return outputs


def output_gate(
    block: Weights, attended: Array, rows: Array, config: SparseCTRRecipe
) -> Array:
    """Closes heads or columns by the rows of the queries (baselines: 5.2).

    Args:
        block: Weights of the block.
        attended: `[N, d]`, before W_O.
        rows: `[N, d]`, normalised.
        config: The model's.
    """
    if config.output_gate == "none":
        return attended
    gates = rows @ block["output_gate"]["kernel"] + block["output_gate"]["bias"]
    outputs = np.zeros_like(attended)
    for n, column in np.ndindex(attended.shape):
        head = column // (config.width // config.num_heads)
        number = column if config.output_gate == "element" else head
        opened = 1.0 / (1.0 + math.exp(-gates[n, number]))
        outputs[n, column] = attended[n, column] * opened
    return outputs


def evo_attention(
    block: Weights,
    sequence: Array,
    user: Array | None,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """EvoAttention of one request (Eqs. 3 to 11).

    Args:
        block: Weights of the block.
        sequence: E_S `[N, d]`, normalised; behaviours, then candidates.
        user: u_c `[d]`, normalised; `None` without user fields.
        behavior_times: `[L]`, left-padded with 0.
        request_time: Unix seconds.
        config: The model's.
        zone: Time zone that decides what a weekend is.

    Returns:
        E_S^Evo `[N, d]`.
    """
    behaviors = sequence[: len(behavior_times)]
    queries = sequence @ block["query"]  # Eq. 3
    keys = behaviors @ block["key"]
    values = behaviors @ block["value"]
    user_key = None if user is None else user @ block["key"]
    user_value = None if user is None else user @ block["value"]
    times = (behavior_times, request_time, config, zone)
    branches = []
    if "global" in config.branches:
        branches.append(global_attention(block, queries, keys, values, *times))
    if "transition" in config.branches:
        branches.append(
            transition_attention(block, queries, keys, values, *times)
        )
    if "local" in config.branches:
        branches.append(
            local_attention(
                block, queries, keys, values, user_key, user_value, *times
            )
        )
    fused = gate(branches, block["gate"], config.num_heads)
    fused = output_gate(block, fused, sequence, config)
    return fused @ block["output"]  # Eq. 11


def full_attention(
    block: Weights,
    sequence: Array,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """Variant A1: every behaviour is a key (Eqs. 3, 16 and 11).

    No chunks, no user key and no gate; RelTemporal is kept. Arguments and
    result are those of `evo_attention`.
    """
    behaviors = sequence[: len(behavior_times)]
    times = query_times_of(behavior_times, request_time, len(sequence))
    heads = attend(
        sequence @ block["query"],
        behaviors @ block["key"],
        behaviors @ block["value"],
        times,
        times[: len(behaviors)],
        visible_positions(times, len(behaviors)),
        rel_temporal(block, config, zone),
        config.num_heads,
        sink_of(block, config),
    )
    heads = output_gate(block, heads, sequence, config)
    return heads @ block["output"]
