"""EvoAttention and full attention with any chunks and encoding.

One request at a time; every query goes through its keys one by one.

Axes: L history length, C candidates, N = L + C, d width, H heads.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from configs.models.sparse_ctr import SparseCTRRecipe
from tests.reference.attention import Array, Weights, gate, mlp, softmax
from tests.reference.chunkings import Chunks
from tests.reference.encodings import Bias, Phase, Place
from tests.reference.times import chunk_time


class Key(NamedTuple):
    """A key: its vector, its value, and where it stands, if anywhere."""

    vector: Array
    value: Array
    place: Place | None


class Request(NamedTuple):
    """One request, and how its attention is made.

    Attributes:
        times: Times `[L]`, left-padded with 0.
        request_time: Unix seconds.
        chunks: Of the history.
        bias: Of the encoding.
        phase: Of the encoding, if it turns queries and keys.
    """

    times: Sequence[int]
    request_time: int
    chunks: Chunks
    bias: Bias
    phase: Phase | None = None

    def place(self, row: int) -> Place:
        """Place of a row of the mixed sequence."""
        length = len(self.times)
        first = sum(time == 0 for time in self.times)
        if row < length:
            return Place(int(self.times[row]), row - first)
        return Place(int(self.request_time), length - first)


def attend(
    query: Array,
    place: Place,
    keys: Sequence[Key],
    request: Request,
    heads: int,
) -> Array:
    """Softmax attention of one query; 0 without a key."""
    output = np.zeros_like(query)
    width = len(query) // heads
    for h in range(heads if keys else 0):
        columns = slice(h * width, (h + 1) * width)
        logits = []
        for key in keys:
            product = float(np.dot(query[columns], key.vector[columns]))
            if key.place is not None and request.phase is not None:
                phases = request.phase(place, key.place)[h]
                product = turned(query[columns], key.vector[columns], phases)
            logits.append(product / math.sqrt(width))
            if key.place is not None:
                logits[-1] += request.bias(place, key.place)[h]
        for weight, key in zip(softmax(np.array(logits)), keys, strict=True):
            output[columns] += weight * key.value[columns]
    return output


def turned(query: Array, key: Array, phases: Array) -> float:
    """Product of two vectors, one of which turns: complex numbers."""
    half, product = len(query) // 2, 0.0
    for i in range(half):
        left = complex(query[i], query[i + half])
        right = complex(key[i], key[i + half])
        turn = complex(math.cos(phases[i]), math.sin(phases[i]))
        product += (left * turn * right.conjugate()).real
    return product


def attention(
    block: Weights,
    sequence: Array,
    user: Array | None,
    request: Request,
    config: SparseCTRRecipe,
) -> Array:
    """Attention of one request; the rows of padding are 0.

    Args:
        block: Weights, as in `tests.reference.sparse_ctr`.
        sequence: `[N, d]`, normalised; behaviours, then candidates.
        user: u_c `[d]`, or `None`.
        request: See there.
        config: The model's.

    Returns:
        `[N, d]`.
    """
    length = len(request.times)
    keys = [
        Key(row @ block["key"], row @ block["value"], request.place(number))
        for number, row in enumerate(sequence[:length])
    ]
    valid = [row for row in range(length) if request.times[row] != 0]
    outputs: list[list[Array]] = [[], [], []]
    for row in range(len(sequence)):
        query = sequence[row] @ block["query"]
        known = [k for k in valid if k <= row]
        branches: list[list[Key]] = [[keys[k] for k in known], [], []]
        if config.attention == "evo":
            ended = [
                (start, end)
                for start, end in request.chunks
                if end - 1 in known
            ]
            window = config.num_local if row < length else config.num_newest
            branches = [
                [_summary(block, keys, c, request) for c in ended],
                _transition(keys, request.chunks, known, config),
                [keys[k] for k in known[-window:]],
            ]
            if user is not None:
                rows = user @ block["key"], user @ block["value"]
                branches[2].append(Key(*rows, None))
            if "local" not in config.branches:
                branches, outputs = branches[:2], outputs[:2]
        is_padding = row < length and request.times[row] == 0
        for branch, output in zip(branches, outputs, strict=True):
            output.append(
                attend(
                    query,
                    request.place(row),
                    [] if is_padding else branch,
                    request,
                    config.num_heads,
                )
            )
    fused = np.array(outputs[0])
    if config.attention == "evo":
        parts: Any = [np.array(output) for output in outputs]
        fused = gate(parts, block["gate"], config.num_heads)
    return fused @ block["output"]


def _summary(
    block: Weights,
    keys: Sequence[Key],
    chunk: tuple[int, int],
    request: Request,
) -> Key:
    """The key of a chunk; it stands where its last member does."""
    start, end = chunk
    members = keys[start:end]
    time = chunk_time(request.times[start:end])
    return Key(
        mlp(block["key_aggregate"], np.mean([k.vector for k in members], 0)),
        mlp(block["value_aggregate"], np.mean([k.value for k in members], 0)),
        Place(time, request.place(end - 1).position),
    )


def _transition(
    keys: Sequence[Key],
    chunks: Chunks,
    known: Sequence[int],
    config: SparseCTRRecipe,
) -> list[Key]:
    """The last m members of each chunk that a query knows of."""
    found = []
    for start, end in chunks:
        for k in range(max(start, end - config.num_transition), end):
            if k in known:
                found.append(keys[k])
    return found
