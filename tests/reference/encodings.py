"""Encodings beside RelTemporal, of one query and one key.

Positions count up from the first valid behaviour, whose position is 0; of a
history of n behaviours, candidates stand at n.

Axes: H heads.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs.models.sparse_ctr import SparseCTRRecipe
from tests.reference.times import Time

Array = NDArray[np.float64]
Weights = Mapping[str, Any]


class Place(NamedTuple):
    """Where a query or a key stands; that of a chunk is its last member's."""

    time: Time
    position: int


Phase = Callable[[Place, Place], Array]
"""(place of query, place of key) -> angle between the two for each plane of
each head, [H, d_h / 2]."""

Bias = Callable[[Place, Place], Array]
"""(place of query, place of key) -> bias of each head [H]."""


def hstu_bias(encoding: Weights, query: Place, key: Place, heads: int) -> Array:
    """`a[p] + b[floor(ln(max(dt, 1)) / 0.301)]`, the same for all heads."""
    table = encoding["position_bias"]
    distance = min(query.position - key.position, len(table) - 1)
    seconds = max(abs(query.time - math.floor(key.time)), 1)
    bucket = min(math.floor(math.log(seconds) / 0.301), 128)
    return np.full(heads, table[distance] + encoding["time_bias"][bucket])


def t5_bias(encoding: Weights, query: Place, key: Place, heads: int) -> Array:
    """A row of 32: 16 exact ones, then powers of 8^(1/16) up to 128."""
    del heads
    distance, bucket = max(query.position - key.position, 0), 0
    if distance < 16:
        bucket = distance
    else:
        powers = math.log(distance / 16) / math.log(128 / 16)
        bucket = min(16 + math.floor(16 * powers), 31)
    return np.array(encoding["position_bias"][bucket])


def alibi(encoding: Weights, query: Place, key: Place, heads: int) -> Array:
    """`-2^(-8 h / H)` for each row between the two."""
    del encoding
    distance = query.position - key.position
    return np.array(
        [-(2.0 ** (-8.0 * h / heads)) * distance for h in range(1, heads + 1)]
    )


def bias_of(config: SparseCTRRecipe, encoding: Weights) -> Bias:
    """Returns the bias of a recipe's encoding.

    Args:
        config: The model's.
        encoding: Weights of the encoding, by name.
    """
    biases = {"hstu": hstu_bias, "t5": t5_bias, "alibi": alibi}
    if config.encoding not in biases:
        return lambda query, key: np.zeros(config.num_heads)
    function = biases[config.encoding]
    return lambda query, key: function(encoding, query, key, config.num_heads)


def rope(
    encoding: Weights, query: Place, key: Place, heads: int, planes: int
) -> Array:
    """`(p_q - p_k) * 10000^(-2 i / d_h)`, the same for all heads."""
    del encoding
    rows = query.position - key.position
    angles = [rows * 10000.0 ** (-2 * i / (2 * planes)) for i in range(planes)]
    return np.array([angles] * heads)


def t_rope(
    encoding: Weights, query: Place, key: Place, heads: int, planes: int
) -> Array:
    """`alpha (t_q - t_k) / beta`, or `(alpha^q t_q + alpha^k t_k) / beta`.

    beta goes from 1e2 to 1e8 over the planes of all heads; the time of a
    chunk is rounded down.
    """
    epoch = 1_577_836_800
    query_time, key_time = query.time - epoch, math.floor(key.time) - epoch
    angles = np.zeros(heads * planes)
    for i in range(heads * planes):
        beta = 1e2 * (1e8 / 1e2) ** (i / (heads * planes - 1))
        if "rates" in encoding:
            angles[i] = encoding["rates"][i] * (query_time - key_time) / beta
        else:
            angles[i] = encoding["query_rates"][i] * query_time / beta
            angles[i] += encoding["key_rates"][i] * key_time / beta
    return angles.reshape(heads, planes)


def phase_of(config: SparseCTRRecipe, encoding: Weights) -> Phase | None:
    """Returns by how much a recipe turns a query past a key, if it does."""
    phases = {
        "rope": rope,
        "t_rope_relative": t_rope,
        "t_rope_published": t_rope,
    }
    if config.encoding not in phases:
        return None
    function, heads = phases[config.encoding], config.num_heads
    planes = config.width // heads // 2
    return lambda query, key: function(encoding, query, key, heads, planes)
