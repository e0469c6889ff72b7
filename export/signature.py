"""What a request looks like to the SavedModel."""

from typing import Any

from sparsectr.schema import DatasetSchema

PROBABILITY = "probability"
"""Name of the output, float32 `[B, C]`."""


def serving_signature(schema: DatasetSchema) -> dict[str, Any]:
    """Returns the inputs of the listwise signature.

    Args:
        schema: The fields of the model.

    Returns:
        `tf.TensorSpec` by name. Batch, history length and number of
        candidates are open; there is no label and no candidate mask.
    """
    import tensorflow as tf

    specs = {}

    def add(name: str, rank: int, dtype: Any) -> None:
        # The name of the spec has to be its key: a server sends by name.
        specs[name] = tf.TensorSpec([None] * rank, dtype, name=name)

    for field in schema.user_fields:
        add(f"user_{field.name}", 1, tf.int32)
    for field in schema.behavior_fields:
        add(f"behavior_{field.name}", 2, tf.int32)
    add("behavior_time", 2, tf.int64)
    add("request_time", 1, tf.int64)
    for field in schema.candidate_fields:
        add(f"candidate_{field.name}", 2, tf.int32)
    for dense in schema.candidate_dense_fields:
        add(f"candidate_{dense.name}", 2, tf.float32)
    return specs
