"""Counts the matrix products of a model's forward pass, from its graph."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

_PRODUCTS = ("MatMul", "BatchMatMulV2")


def matrix_products(model: Any, inputs: dict[str, Any]) -> int:
    """Returns additions and multiplications of the matrix products.

    What is computed with zeros is not counted: attention is traced head by
    head, and of heads that lie side by side one counts. Nor are products with
    an inner axis of 1, which only spread a vector.

    Args:
        model: A `RankingModel`.
        inputs: Its inputs, all of a known shape.
    """
    with mock.patch("sparsectr.ops.head_attention._MANY_KEYS", 0):
        graph = (
            tf.function(lambda batch: model(batch).logits, autograph=False)
            .get_concrete_function(
                {k: tf.TensorSpec(v.shape, v.dtype) for k, v in inputs.items()}
            )
            .graph
        )
    heads = getattr(model.recipe, "num_heads", 1)
    gated = heads * len(getattr(model.recipe, "branches", ())) or heads
    return sum(
        2 * _size(operation, heads, gated) for operation in _operations(graph)
    )


def _operations(graph: Any) -> Iterator[Any]:
    for operation in graph.get_operations():
        if operation.type in _PRODUCTS or operation.type == "Einsum":
            yield operation


def _size(operation: Any, heads: int, gated: int) -> int:
    """Returns the products of numbers that one operation needs.

    Args:
        operation: Of the graph.
        heads: H.
        gated: Columns of the gate of the branches.
    """
    left, right = (tuple(x.shape) for x in operation.inputs)
    if operation.type == "Einsum":
        equation = operation.get_attr("equation").decode()
        letters = equation.partition("->")[0].split(",")
        sizes = dict(zip("".join(letters), left + right, strict=True))
        return int(np.prod(list(sizes.values())))
    transposed = "transpose_a" if operation.type == "MatMul" else "adj_x"
    inner = left[-2 if operation.get_attr(transposed) else -1]
    if inner == 1:
        return 0
    size = int(np.prod(tuple(operation.outputs[0].shape))) * inner
    # Of a product that gathers columns by head, or spreads heads to columns,
    # a head needs its own columns alone.
    is_wide = heads > 1 and {heads, gated} & set(right) and len(right) == 2
    return size // heads if is_wide else size
