"""XLA computes what eager code computes; no tensor is quadratic."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.keras_weights import random_model
from tests.make_requests import SCHEMA, SMALL_CONFIG, make_requests

LONG = 257
NUM_CANDIDATES = 263
"""As long: candidates times behaviors count as quadratic too."""


def _step(model: Any) -> Any:
    """Returns a function from inputs to logits and all gradients."""

    def step(inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            logits = model(inputs).logits
            loss = tf.reduce_mean(tf.nn.softplus(logits))
        sources = [weight.value for weight in model.trainable_weights]
        gradients = tape.gradient(loss, sources)
        return logits, [tf.convert_to_tensor(g) for g in gradients]

    return step


# Dense gradients of small tables are what this test compares.
@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
def test_xla_equals_eager() -> None:
    model = random_model(SCHEMA, SMALL_CONFIG, 1)
    step = _step(model)
    inputs = make_requests(2, [13, 0, 2], length=13)
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    logits, gradients = step(tensors)
    compiled = tf.function(step, jit_compile=True)
    found, found_gradients = compiled(tensors)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    for weight, x, y in zip(
        model.trainable_weights, found_gradients, gradients, strict=True
    ):
        np.testing.assert_allclose(
            x, y, rtol=1e-3, atol=1e-5, err_msg=weight.path
        )


def _shapes(graph: Any) -> Iterator[tuple[str, tf.TensorShape]]:
    """Yields name and shape of every tensor of a graph and its functions."""
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            yield tensor.name, tensor.shape
    for function in graph._functions.values():
        inner = getattr(function, "graph", None)
        if inner is not None:
            yield from _shapes(inner)


def _is_quadratic(shape: tf.TensorShape) -> bool:
    """Whether two axes, or the elements of one request, grow as L * L."""
    long_axes = sum(size is not None and size >= LONG for size in shape)
    return long_axes >= 2 or (shape.num_elements() or 0) >= LONG**2


@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@pytest.mark.parametrize(
    "attention", ["evo", "full", "dilated", "semi_local", "linformer", "nsa"]
)
def test_only_full_attention_has_quadratic_tensors(attention: str) -> None:
    config = dataclasses.replace(
        SMALL_CONFIG,
        attention=attention,
        encoding="none" if attention == "linformer" else "rel_temporal",
        longest_history=LONG,
        num_keys=11,
        num_first=3,
        num_recent=5,
        nsa_block=32,
        nsa_stride=32,
        nsa_selected_block=4,
    )
    model = random_model(SCHEMA, config, 1)
    inputs = make_requests(
        3, [LONG], length=LONG, num_candidates=NUM_CANDIDATES
    )
    function = tf.function(_step(model)).get_concrete_function(
        {name: tf.TensorSpec(v.shape, v.dtype) for name, v in inputs.items()}
    )
    shapes = list(_shapes(function.graph))
    # The check sees nothing of a tensor of unknown size, so it may only be
    # one axis of a gradient's bookkeeping.
    hidden = [
        name
        for name, shape in shapes
        if shape.rank is None
        or (shape.rank > 1 and not shape.is_fully_defined())
    ]
    assert not hidden
    assert any(shape.rank and LONG in shape for _, shape in shapes)
    quadratic = [name for name, shape in shapes if _is_quadratic(shape)]
    if attention == "full":
        assert len(quadratic) > 10
    else:
        assert not quadratic
