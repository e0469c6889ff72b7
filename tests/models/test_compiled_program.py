"""What XLA makes of the model: no tensor of it is quadratic.

The graph, which `test_executions.py` looks at, is what the compiler is given;
this is the program that runs, with every tensor inside a fusion.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.attention.full_attention import plan_full_attention
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep
from tests.keras_weights import random_model
from tests.make_requests import SCHEMA, SMALL_CONFIG, make_requests

LENGTH = 1021
NUM_CANDIDATES = 211
"""More than SMALL_CONFIG has numbers for a behavior, in any tensor."""

_SHAPE = re.compile(r"\b(?:pred|[suf]\d+|bf16)\[([\d,]+)\]")


def _compile(attention: str, mode: str) -> str:
    """Returns the optimized program of a forward pass or training step."""
    config = dataclasses.replace(SMALL_CONFIG, attention=attention)
    model = random_model(SCHEMA, config, 1)
    inputs = make_requests(
        2, [LENGTH], length=LENGTH, num_candidates=NUM_CANDIDATES
    )
    if mode == "inference":
        function = tf.function(
            lambda batch: model(batch), jit_compile=True, autograph=False
        )
    else:
        inputs["label"] = np.zeros((1, NUM_CANDIDATES), np.float32)
        step = TrainStep(model, LazyAdam(), make_strategy(1), jit_compile=True)
        # The part of the step that is compiled. The update, outside it,
        # sees rows of tables alone.
        function = step._forward_backward
    batch = {name: tf.constant(value) for name, value in inputs.items()}
    given = [batch] if mode == "inference" else [batch, tf.constant(1.0)]
    return function.experimental_get_compiler_ir(*given)("optimized_hlo")


def _shapes(program: str) -> Iterator[tuple[int, ...]]:
    for found in _SHAPE.finditer(program):
        yield tuple(int(size) for size in found[1].split(","))


def _is_long(size: int) -> bool:
    """Whether an axis runs along the history, padded or cut a little."""
    return LENGTH - 20 <= size <= LENGTH + 20


def _is_product(shape: tuple[int, ...]) -> bool:
    """Whether a tensor relates behaviors to behaviors or to candidates.

    Either by its axes or, should the compiler have merged or split them, by
    having a number for each pair.
    """
    long_axes = sum(map(_is_long, shape))
    return (
        long_axes >= 2
        or (long_axes == 1 and NUM_CANDIDATES in shape)
        or math.prod(shape) >= LENGTH * NUM_CANDIDATES
    )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_no_tensor_is_quadratic(mode: str) -> None:
    shapes = set(_shapes(_compile("evo", mode)))
    # History and candidates are there, each by itself.
    assert any(any(map(_is_long, shape)) for shape in shapes)
    assert any(NUM_CANDIDATES in shape for shape in shapes)
    assert not [shape for shape in shapes if _is_product(shape)]


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_full_attention_is_found_out(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = filter(_is_product, _shapes(_compile("full", mode)))
    assert any(NUM_CANDIDATES not in shape for shape in found)
    # Without blocks of queries, which leave no tensor with two long axes.
    monkeypatch.setattr(
        "sparsectr.models.sparse_ctr.plan_full_attention",
        functools.partial(plan_full_attention, num_query_blocks=1),
    )
    found = set(filter(_is_product, _shapes(_compile("full", mode))))
    assert any(sum(map(_is_long, shape)) == 2 for shape in found)
    assert any(
        any(map(_is_long, shape)) and NUM_CANDIDATES in shape for shape in found
    )
