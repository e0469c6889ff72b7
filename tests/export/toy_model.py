"""A SavedModel with the signatures of a click model, and a formula in it.

Its score depends on the place of a behavior from the end, so that padding
on the wrong side changes it. A state of another width fails, as it does in an
attention of another width.
"""

import pathlib
from typing import Any

import tensorflow as tf

USER = {
    "user_city": ("string", 1),
    "behavior_brand": ("int64", 2),
    "behavior_time": ("int64", 2),
}
CANDIDATES = {
    "request_time": ("int64", 1),
    "candidate_brand": ("int64", 2),
    "candidate_price": ("float32", 2),
}


def _specs(types: dict[str, tuple[str, int]]) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None] * rank, dtype, name=name)
        for name, (dtype, rank) in types.items()
    }


def _weight(values: Any) -> Any:
    return tf.sin(tf.cast(values % 1000, tf.float32))


def save_toy_model(
    path: pathlib.Path, *, fingerprint: int, width: int = 2
) -> None:
    """Writes a version."""
    shares = [
        [2.0 * place / (width * (width + 1))] for place in range(1, width + 1)
    ]

    def encode_user(**user: Any) -> dict[str, Any]:
        is_real = user["behavior_time"] > 0  # [B, L]
        age = tf.range(tf.shape(is_real)[1])[::-1]
        decay = tf.pow(0.9, tf.cast(age, tf.float32))
        weight = _weight(user["behavior_brand"]) * decay
        history = tf.reduce_sum(tf.where(is_real, weight, 0.0), 1)  # [B]
        city = tf.strings.to_hash_bucket_fast(user["user_city"], 1000)
        history += _weight(city)
        return {
            "state_values": tf.tile(history[:, None], [1, width]),
            "state_key_mask": tf.ones_like(history[:, None], tf.bool),
            "state_fingerprint": tf.fill(
                tf.shape(history), tf.constant(fingerprint, tf.int64)
            ),
        }

    def score(**inputs: Any) -> dict[str, Any]:
        price = inputs["candidate_price"]
        price = tf.where(tf.math.is_nan(price), 0.0, price)
        day = _weight(inputs["request_time"] // 86400)
        logits = (
            _weight(inputs["candidate_brand"]) * day[:, None]
            + tf.matmul(inputs["state_values"], shares)
            + 0.1 * price
        )
        own = inputs["state_fingerprint"] == fingerprint
        return {
            "probability": tf.where(
                own[:, None], tf.sigmoid(logits), float("nan")
            )
        }

    def whole_pass(**inputs: Any) -> dict[str, Any]:
        user = {name: inputs[name] for name in USER}
        candidates = {name: inputs[name] for name in CANDIDATES}
        return score(**encode_user(**user), **candidates)

    state = {
        "state_values": tf.TensorSpec([None, width], tf.float32),
        "state_key_mask": tf.TensorSpec([None, 1], tf.bool),
        "state_fingerprint": tf.TensorSpec([None], tf.int64),
    }
    state = {
        name: tf.TensorSpec(spec.shape, spec.dtype, name=name)
        for name, spec in state.items()
    }
    candidates = _specs(CANDIDATES)
    signatures = {
        "serving_default": (whole_pass, {**_specs(USER), **candidates}),
        "encode_user": (encode_user, _specs(USER)),
        "score": (score, {**state, **candidates}),
    }
    tf.saved_model.save(
        tf.Module(),
        str(path),
        signatures={
            name: tf.function(function).get_concrete_function(**specs)
            for name, (function, specs) in signatures.items()
        },
    )
