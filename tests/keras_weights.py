"""Weights of Keras models and layers: made random, handed to the reference."""

import dataclasses
from typing import Any

import numpy as np

from sparsectr.model_recipe import ModelRecipe
from sparsectr.schema import DatasetSchema


def randomize(layer: Any, seed: int) -> None:
    """Draws all weights anew, the same ones for the same seed.

    Zeros, ones and slopes that are equal in every block would hide a weight
    that is used twice or not at all. Kernels keep the size of their inputs,
    so that a deep model still computes ordinary numbers.
    """
    random = np.random.default_rng(seed)
    for weight in _in_one_order(layer.weights):
        noise = random.normal(size=tuple(weight.shape))
        name = weight.path.rsplit("/", maxsplit=1)[-1]
        if name == "rows":
            weight.assign(noise)
        elif name == "kernel":
            weight.assign(1.5 * noise * noise.shape[-2] ** -0.5)
        elif name in ("scale", "moving_variance"):
            weight.assign(1.0 + 0.2 * noise)
        else:
            weight.assign(0.3 * noise)


_PARTS_OF_A_BLOCK = (
    "attention_norm",
    "feed_forward_norm",
    "attention",
    "encoding",
    "feed_forward",
)


def _in_one_order(weights: list[Any]) -> list[Any]:
    """Returns weights as they are, but those of a block part by part.

    In whatever order a layer gets its parts, the same numbers are drawn.
    """
    first: dict[str, int] = {}

    def key(item: tuple[int, Any]) -> tuple[int, int]:
        place, weight = item
        names = weight.path.split("/")
        parts = [n for n, name in enumerate(names) if name in _PARTS_OF_A_BLOCK]
        if not parts:
            return place, 0
        block = "/".join(names[: parts[0]])
        rank = max(_PARTS_OF_A_BLOCK.index(names[n]) for n in parts[:2])
        return first.setdefault(block, place), rank

    return [weight for _, weight in sorted(enumerate(weights), key=key)]


def random_model(
    schema: DatasetSchema,
    recipe: ModelRecipe,
    seed: int = 0,
    dtype: str = "float32",
) -> Any:
    """Returns the model of a recipe with random weights."""
    model = recipe.build(schema, dtype)
    randomize(model, seed)
    return model


def reference_weights(model: Any) -> dict[str, Any]:
    """Returns the weights of a SparseCTR as `tests.reference` wants them."""
    embedding = model.embedding
    head = model.prediction
    weights: dict[str, Any] = {
        "tables": {
            name: _array(table.rows) for name, table in embedding.tables.items()
        },
        "behavior_projection": _dense(embedding.behavior_projection),
        "candidate_projection": _dense(embedding.candidate_projection),
        "blocks": [block_weights(block) for block in model.blocks],
        "head": {
            "candidate": _array(head.candidate_projection.kernel),
            **_mlp(head.mlp.hidden[0], head.mlp.output_unit),
        },
    }
    if model.schema.user_fields:
        weights["head"]["user"] = _array(head.user_projection.kernel)
        if model.blocks[0].attention.reads_user:
            weights["user_mlp"] = _mlp(*model.user_mlp.layers)
    return weights


def block_weights(block: Any) -> dict[str, Any]:
    """Returns the weights of one SparseBlock."""
    return {
        "attention_norm": _array(block.attention_norm.scale),
        "feed_forward_norm": _array(block.feed_forward_norm.scale),
        "swiglu_gate": _array(block.feed_forward.gate.kernel),
        "swiglu_up": _array(block.feed_forward.up.kernel),
        "swiglu_down": _array(block.feed_forward.down.kernel),
        **attention_weights(block.attention),
    }


def attention_weights(attention: Any) -> dict[str, Any]:
    """Returns the weights of an attention of any kind."""
    weights: dict[str, Any] = {
        name: _array(getattr(attention, f"{name}_projection").kernel)
        for name in ("query", "key", "value", "output")
    }
    if hasattr(attention, "gate"):
        weights["gate"] = _array(attention.gate.kernel)
    if hasattr(attention, "key_aggregate"):
        weights["key_aggregate"] = _mlp(*attention.key_aggregate)
        weights["value_aggregate"] = _mlp(*attention.value_aggregate)
    for name in ("key_sums", "value_sums"):
        if hasattr(attention, name):
            weights[name] = _array(getattr(attention, name).kernel)
    if hasattr(attention, "branch_gates"):
        weights["branch_gates"] = _dense(attention.branch_gates)
        for name in ("key", "value"):
            projection = getattr(attention, f"window_{name}_projection")
            weights[f"window_{name}"] = _array(projection.kernel)
            layer = getattr(attention, f"{name}_compression")
            weights[f"{name}_compression"] = {
                "hidden": _array(layer.hidden.kernel),
                "row_positions": _array(layer.row_positions),
                "output": _array(layer.output_projection.kernel),
            }
    unused = np.full(attention.num_heads, np.nan)
    slopes = {}
    for kind in ("time", "hour", "weekend"):
        weight = getattr(attention.encoding, f"slopes_{kind}", None)
        slopes[kind] = unused if weight is None else _array(weight)
    for name in ("logit", "key", "value"):
        if hasattr(attention.sink, name):
            weights[f"sink_{name}"] = _array(getattr(attention.sink, name))
    if getattr(attention, "boundary_sinks", None) is not None:
        weights["boundary_rows"] = _array(attention.boundary_sinks.rows)
    if getattr(attention, "num_registers", 0):
        weights["registers"] = _array(attention.registers)
    if attention.output_gate is not None:
        weights["output_gate"] = _dense(attention.output_gate.projection)
    return weights | {f"slopes_{kind}": s for kind, s in slopes.items()}


def without_user_fields(schema: DatasetSchema) -> DatasetSchema:
    """Returns a copy that knows nothing of the user."""
    return dataclasses.replace(schema, user_fields=(), user_dense_fields=())


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight.numpy(), np.float64)


def _dense(layer: Any) -> dict[str, np.ndarray]:
    return {"kernel": _array(layer.kernel), "bias": _bias(layer)}


def _bias(layer: Any) -> np.ndarray:
    if layer.bias is None:
        return np.zeros(layer.units)
    return _array(layer.bias)


def _mlp(first: Any, second: Any) -> dict[str, np.ndarray]:
    return {
        "kernel_1": _array(first.kernel),
        "bias_1": _bias(first),
        "kernel_2": _array(second.kernel),
        "bias_2": _bias(second),
    }
