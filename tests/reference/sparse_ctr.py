"""SparseCTR from inputs to logits and loss (3.2, 3.3, 3.6).

The weights are a dict. Vectors multiply kernels from the left.

    tables: {name: [rows, e]}
    behavior_projection, candidate_projection: {kernel, bias}
    user_mlp: {kernel_1, bias_1, kernel_2, bias_2}
    blocks: a list of
        attention_norm, feed_forward_norm [d]
        query, key, value, output [d, d]
        key_aggregate, value_aggregate: {kernel_1, bias_1, kernel_2, bias_2}
        gate [H, 3 d_h, 3]
        slopes_time, slopes_hour, slopes_weekend [H]
        swiglu_gate (W_1), swiglu_up (W_2) [d, 3 d], swiglu_down (W_3) [3 d, d]
    head: {candidate (W_4) [d, d], user (W_5) [U e, d],
           kernel_1, bias_1, kernel_2, bias_2}

Axes: B batch, L history length, C candidates, N = L + C, U user fields,
d width, e width of the tables.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.schema import CategoricalField, DatasetSchema, DenseField
from tests.reference.attention import (
    Array,
    Weights,
    evo_attention,
    full_attention,
    mlp,
)
from tests.reference.sparse_attention import (
    dilated_attention,
    linformer_attention,
    native_sparse_attention,
    semi_local_attention,
)
from tests.reference.time_fields import behavior_ids, embed_times, request_ids
from tests.reference.times import zone_of

OTHERS = {
    "full": full_attention,
    "dilated": dilated_attention,
    "semi_local": semi_local_attention,
    "linformer": linformer_attention,
    "nsa": native_sparse_attention,
}
"""Attentions that do not read the user."""


def sigmoid(inputs: Array) -> Array:
    """The logistic function."""
    return 1.0 / (1.0 + np.exp(-inputs))


def rms_norm(inputs: Array, scale: Array) -> Array:
    """RMSNorm over the last axis, with a learned scale (3.3)."""
    mean_square = np.mean(inputs**2, axis=-1, keepdims=True)
    return inputs / np.sqrt(mean_square + 1e-6) * scale


def swiglu(block: Weights, inputs: Array) -> Array:
    """The feed-forward network (Eq. 2)."""
    gate = inputs @ block["swiglu_gate"]
    swish = gate * sigmoid(gate)
    return (swish * (inputs @ block["swiglu_up"])) @ block["swiglu_down"]


def sparse_block(
    block: Weights,
    sequence: Array,
    user: Array | None,
    behavior_times: Sequence[int],
    request_time: int,
    config: SparseCTRRecipe,
    zone: datetime.tzinfo,
) -> Array:
    """One SparseBlock, pre-norm with residuals (3.3).

    Args:
        block: Weights of the block.
        sequence: E_S `[N, d]`; behaviours, then candidates.
        user: u_c `[d]`, not yet normalised; `None` without user fields.
        behavior_times: `[L]`, left-padded with 0.
        request_time: Unix seconds.
        config: The model's.
        zone: Time zone that decides what a weekend is.

    Returns:
        `[N, d]`. The rows of padding mean nothing.
    """
    normalized = rms_norm(sequence, block["attention_norm"])
    times = (behavior_times, request_time, config, zone)
    if config.attention != "evo":
        attended = OTHERS[config.attention](block, normalized, *times)
    else:
        # The user goes through the block like an element of the sequence.
        if user is not None:
            user = rms_norm(user, block["attention_norm"])
        attended = evo_attention(block, normalized, user, *times)
    sequence = sequence + attended
    normalized = rms_norm(sequence, block["feed_forward_norm"])
    return sequence + swiglu(block, normalized)


def prediction_layer(
    head: Weights, candidates: Array, user_embeddings: Array
) -> Array:
    """Logits of the candidates (Eq. 17).

    Args:
        head: Weights of the prediction layer.
        candidates: E_C `[C, d]`.
        user_embeddings: e_U, flattened, `[U e]`; empty without user fields,
            whose factor is then 1.

    Returns:
        `[C]`, before the sigmoid.
    """
    fused = np.maximum(candidates @ head["candidate"], 0.0)
    if len(user_embeddings) > 0:
        fused = fused * sigmoid(user_embeddings @ head["user"])
    return mlp(head, fused)[:, 0]


def binary_cross_entropy(logits: Array, labels: Array, mask: Array) -> float:
    """Mean loss over real candidates (Eq. 18).

    Args:
        logits: `[B, C]`.
        labels: `[B, C]`, 0 or 1.
        mask: `[B, C]`, True for a real candidate.
    """
    losses = []
    for index in np.ndindex(logits.shape):
        if mask[index]:
            # -log(sigmoid(x)) = log(1 + exp(-x)), and likewise for 1 - y.
            logit, label = float(logits[index]), float(labels[index])
            losses.append(
                label * np.logaddexp(0.0, -logit)
                + (1.0 - label) * np.logaddexp(0.0, logit)
            )
    return float(np.mean(losses))


def embed(
    tables: Mapping[str, Array],
    fields: Sequence[CategoricalField],
    ids: Mapping[str, Any],
    prefix: str,
) -> list[float]:
    """Embeddings of one element's fields, side by side in schema order.

    Of a set it is the mean, and zeros if the set is empty.
    """
    numbers: list[float] = []
    for field in fields:
        table, values = tables[field.table], ids[prefix + field.name]
        if field.is_set:
            members = [table[int(n)] for n in values if n != 0]
            nothing = np.zeros(table.shape[1])
            numbers.extend(np.mean(members, axis=0) if members else nothing)
        else:
            numbers.extend(table[int(values)])
    return numbers


def transform(field: DenseField, value: float) -> float:
    """What the model sees of a number; 0 for a missing one."""
    if math.isnan(value):
        return 0.0
    if field.transform == "log1p":
        value = math.log1p(max(value, 0.0))
    return (value - field.mean) / field.scale


def input_layer(
    weights: Weights, row: Mapping[str, Any], schema: DatasetSchema
) -> tuple[Array, Array]:
    """E_S `[N, d]` and the flattened e_U `[U e]` of one request (3.2)."""
    tables = weights["tables"]
    names, zone = schema.time_fields, zone_of(schema.time_zone.name)
    times = [int(time) for time in row["behavior_time"]]
    request_time = int(row["request_time"])
    elements = []
    projection = weights["behavior_projection"]
    for position in range(len(row["behavior_time"])):
        ids = {
            f"behavior_{f.name}": row[f"behavior_{f.name}"][position]
            for f in schema.behavior_fields
        }
        features = embed(tables, schema.behavior_fields, ids, "behavior_")
        features += embed_times(
            tables, behavior_ids(names, times, position, request_time, zone)
        )
        for field in schema.behavior_dense_fields:
            value = float(row[f"behavior_{field.name}"][position])
            features.append(transform(field, value))
        elements.append(
            np.array(features) @ projection["kernel"] + projection["bias"]
        )
    projection = weights["candidate_projection"]
    for number in range(len(row["candidate_mask"])):
        ids = {
            f"candidate_{f.name}": row[f"candidate_{f.name}"][number]
            for f in schema.candidate_fields
        }
        features = embed(tables, schema.candidate_fields, ids, "candidate_")
        features += embed_times(tables, request_ids(names, request_time, zone))
        for field in schema.candidate_dense_fields:
            value = float(row[f"candidate_{field.name}"][number])
            features.append(transform(field, value))
        elements.append(
            np.array(features) @ projection["kernel"] + projection["bias"]
        )
    user = embed(tables, schema.user_fields, row, "user_")
    for field in schema.user_dense_fields:
        user.append(transform(field, float(row[f"user_{field.name}"])))
    return np.array(elements), np.array(user)


def forward(
    weights: Weights,
    inputs: Mapping[str, NDArray[Any]],
    schema: DatasetSchema,
    config: SparseCTRRecipe,
) -> Array:
    """Logits `[B, C]` of a batch, one request after the other.

    Args:
        weights: The dict at the head of this file.
        inputs: The project's dict of arrays; labels are not read.
        schema: Which fields exist.
        config: The model's.

    Returns:
        `[B, C]`. Padded candidates are scored like any other.
    """
    logits = []
    for b in range(len(inputs["request_time"])):
        row = {name: values[b] for name, values in inputs.items()}
        sequence, user_embeddings = input_layer(weights, row, schema)
        user = None
        reads_user = config.attention == "evo" and "local" in config.branches
        if schema.user_fields and reads_user:
            user = mlp(weights["user_mlp"], user_embeddings)
        behavior_times = [int(time) for time in row["behavior_time"]]
        for block in weights["blocks"]:
            sequence = sparse_block(
                block,
                sequence,
                user,
                behavior_times,
                int(row["request_time"]),
                config,
                zone_of(schema.time_zone.name),
            )
        candidates = sequence[len(behavior_times) :]
        logits.append(
            prediction_layer(weights["head"], candidates, user_embeddings)
        )
    return np.array(logits)
