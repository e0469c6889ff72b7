"""How many operations a pass has, and how fast the machine could do them."""

import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparsectr.model_recipe import ModelRecipe, RequestShape
from sparsectr.schema import DatasetSchema

_MATRIX = 2048
_COPY_BYTES = 2**28
_REPEATS = 5

# An instruction of XLA's text: name, type and shape of its result, operation.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = \w+\[([\d,]*)\]\S* (\w+)\(")
_OPERAND = re.compile(r"dot\((?:\w+\[[\d,]*\]\S* )?%?([^,\s)]+)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


def needed_bytes(
    recipe: ModelRecipe, schema: DatasetSchema, shape: RequestShape
) -> int:
    """Counts what a forward pass cannot but read: ids, times, their rows."""
    ids = (
        len(schema.user_fields)
        + len(schema.behavior_fields) * shape.length
        + len(schema.candidate_fields) * shape.num_candidates
    )
    seconds = 8 * (shape.length + 1)
    row = 4 * recipe.embedding_dim
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
        recipe = contenders.recipe_of(name)
        needed = recipe.flops(model.schema, shape.of_requests)
        read = needed_bytes(recipe, model.schema, shape.of_requests)
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
