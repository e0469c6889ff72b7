"""What two-stage retrieval models are made of, as NumPy loops."""

from typing import Any

import numpy as np


def array(weight: Any) -> np.ndarray:
    """Returns a weight in float64."""
    return np.asarray(weight, np.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - np.max(x))
    return x / np.sum(x)


def target_attention(
    candidate: np.ndarray, rows: np.ndarray, layer: Any
) -> np.ndarray:
    """One candidate `[d]` reads the rows `[n, w]` that it is given."""
    query = candidate @ array(layer.query.kernel)
    keys = rows @ array(layer.key.kernel)
    values = rows @ array(layer.value.kernel)
    heads = []
    for columns in np.split(np.arange(len(query)), layer.num_heads):
        total = np.zeros(len(columns))
        if len(rows):
            logits = keys[:, columns] @ query[columns] / len(columns) ** 0.5
            total = softmax(logits) @ values[:, columns]
        heads.append(total)
    return np.concatenate(heads) @ array(layer.output_projection.kernel)


def best(scores: np.ndarray, count: int) -> list[int]:
    """Returns the places of the highest scores; of equal ones the newest."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], -i))
    return order[:count]


def mlp_head(row: np.ndarray, head: Any) -> float:
    """Returns the logit of a head with ReLU."""
    for hidden in head.hidden:
        row = row @ array(hidden.kernel) + array(hidden.bias)
        row = np.maximum(row, 0.0)
    last = head.output_unit
    return float(row @ array(last.kernel)[:, 0] + array(last.bias)[0])


def log_gap_rows(gap: Any, time: np.ndarray, request_time: int) -> np.ndarray:
    """Returns the rows of `GapEmbedding` for some times."""
    table = array(gap.table.rows)
    gaps = np.maximum(request_time - time, 1)
    return table[[1 + int(x).bit_length() - 1 for x in gaps]]


def short_interest(
    model: Any, candidate: np.ndarray, behaviors: np.ndarray
) -> np.ndarray:
    """Returns what the newest of the valid behaviors say."""
    newest = behaviors[max(len(behaviors) - model.recipe.num_recent, 0) :]
    return target_attention(candidate, newest, model.short_attention)
