"""How many operations a pass needs, and how fast the machine could do them.

Letters: B batch, L history length, C candidates, d width, P chunks,
m transition behaviors a chunk, w local window, S = P + m P + w + 1.
"""

import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparsectr.config import ModelConfig
from sparsectr.layers.attention.full_attention import query_block_bounds
from sparsectr.layers.sparse_block import FEED_FORWARD_MULTIPLIER
from sparsectr.schema import DatasetSchema

_MATRIX = 2048
_COPY_BYTES = 2**28
_REPEATS = 5

# An instruction of XLA's text: name, type and shape of its result, operation.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = \w+\[([\d,]*)\]\S* (\w+)\(")
_OPERAND = re.compile(r"dot\((?:\w+\[[\d,]*\]\S* )?%?([^,\s)]+)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


def needed_operations(
    config: ModelConfig,
    schema: DatasetSchema,
    shape: Any,
    *,
    baseline: str | None = None,
) -> int:
    """Counts the matrix products of a forward pass, by formula.

    Only what the equations need: an implementation that computes with zeros
    does more. Masked keys are counted where they are not skipped: all of
    EvoAttention, and of full attention those up to the end of a block.

    Args:
        config: The model.
        schema: Its fields.
        shape: `contenders.Shape`.
        baseline: "all_pairs" or "paper" for these forms of full attention.

    Returns:
        Additions and multiplications.
    """
    width, length = config.width, shape.num_behaviors
    candidates = shape.num_candidates
    is_full = config.attention == "full"
    all_rows = baseline == "paper"
    blocks = query_block_bounds(length)
    if baseline == "all_pairs":
        blocks = [(0, length)]
    pairs = sum((end - start) * end for start, end in blocks)
    selected = config.num_chunks * (1 + config.num_transition)
    total = 0
    for index in range(config.num_blocks):
        is_last = index == config.num_blocks - 1
        rows = length if all_rows or not is_last else 0
        if is_full:
            projected = length
            if all_rows:
                scores = (length + candidates) ** 2
            else:
                scores = (0 if is_last else pairs) + candidates * length
            aggregate = 0
            if all_rows:
                projected += candidates
        else:
            projected = selected + config.num_local + 1 + rows
            scores = rows * (selected + config.num_local + 1)
            scores += candidates * (selected + config.num_local + 1)
            # Means of chunks, and two layers each for keys and values.
            aggregate = config.num_chunks * length * width
            aggregate += 4 * config.num_chunks * width**2
        queries = rows + candidates
        total += aggregate
        total += 2 * projected * width**2  # keys and values
        total += 2 * queries * width**2  # queries and results
        total += 2 * scores * width  # logits and weighted values
        total += 3 * FEED_FORWARD_MULTIPLIER * queries * width**2
        if not is_full:
            head_width = width // config.num_heads
            total += queries * config.num_heads * 3 * 3 * head_width  # gate
    total += _embedding_products(config, schema, length, candidates)
    return 2 * shape.batch_size * total


def _embedding_products(
    config: ModelConfig, schema: DatasetSchema, length: int, candidates: int
) -> int:
    """Returns products of embedding projections and prediction, a request."""
    width, embedded = config.width, config.embedding_dim
    inputs = len(schema.candidate_fields) * embedded
    inputs += len(schema.candidate_dense_fields)
    user = len(schema.user_fields) * embedded
    total = length * len(schema.behavior_fields) * embedded * width
    total += candidates * inputs * width
    total += candidates * (width**2 + width * config.head_units)
    total += candidates * config.head_units + user * width
    if config.attention == "evo" and user:
        total += user * width + width**2
    return total


def needed_bytes(config: ModelConfig, schema: DatasetSchema, shape: Any) -> int:
    """Counts what a forward pass cannot but read: ids, times, their rows."""
    ids = (
        len(schema.user_fields)
        + len(schema.behavior_fields) * shape.num_behaviors
        + len(schema.candidate_fields) * shape.num_candidates
    )
    seconds = 8 * (shape.num_behaviors + 1)
    row = 4 * config.embedding_dim
    return shape.batch_size * (ids * (4 + row) + seconds)


def compiled_operations(text: str) -> int:
    """Counts the matrix products of a program in XLA's text form.

    Args:
        text: What XLA is given ("hlo"): a later stage hides products in
            calls of libraries.

    Returns:
        Additions and multiplications.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    total = 0
    for line in text.splitlines():
        found = _INSTRUCTION.match(line)
        if found is None:
            continue
        name, dimensions, operation = found.groups()
        shapes[name] = _integers(dimensions)
        operand, contracted = _OPERAND.search(line), _CONTRACTED.search(line)
        if operation == "dot" and operand and contracted:
            left = shapes[operand[1]]
            inner = math.prod(left[axis] for axis in _integers(contracted[1]))
            # Over one element it is a broadcast, and is compiled as one.
            total += 2 * math.prod(shapes[name]) * inner if inner > 1 else 0
    return total


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def measured_peaks() -> dict[str, float]:
    """Returns operations and bytes a second that this machine reaches.

    By a float32 product of two large matrices, and by a copy of an array
    larger than the caches, read and write counted.
    """
    import tensorflow as tf

    matrix = tf.random.normal((_MATRIX, _MATRIX), seed=0)
    source = np.zeros(_COPY_BYTES, np.uint8)
    target = np.ones_like(source)
    product = _fastest(lambda: tf.matmul(matrix, matrix).numpy())
    copy = _fastest(lambda: np.copyto(target, source))
    return {
        "operations_per_second": 2 * _MATRIX**3 / product,
        "bytes_per_second": 2 * _COPY_BYTES / copy,
    }


def _fastest(call: Callable[[], object]) -> float:
    """Returns the least time: a peak is what nothing has disturbed."""
    seconds = []
    for _ in range(1 + _REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def floors(
    shape: Any, seconds: Mapping[str, float]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Compares inference with the least time that this machine could take.

    The floor is that of matrix products or of reading what is needed,
    whichever is longer. Exponentials, biases, and all that passes through
    memory in between are above it by definition.

    Args:
        shape: `contenders.Shape`.
        seconds: Of a call, by name of the contender.

    Returns:
        The peaks of the machine, and a row for each contender.
    """
    import tensorflow as tf

    from benchmarks.attention import contenders

    peaks = measured_peaks()
    batch = contenders.batches_of(shape)[0]
    rows = []
    for name, measured in seconds.items():
        model = contenders.model_of(name, shape)
        config = contenders.config_of(name)
        needed = needed_operations(
            config,
            model.schema,
            shape,
            baseline=name,
        )
        read = needed_bytes(config, model.schema, shape)
        function = tf.function(
            functools.partial(model, training=False), jit_compile=True
        )
        text = function.experimental_get_compiler_ir(batch)(stage="hlo")
        floor = max(
            needed / peaks["operations_per_second"],
            read / peaks["bytes_per_second"],
        )
        rows.append(
            {
                "name": name,
                "needed_operations": needed,
                "compiled_operations": compiled_operations(text),
                "needed_bytes": read,
                "floor_seconds": floor,
                "times_the_floor": measured / floor,
            }
        )
    return peaks, rows
