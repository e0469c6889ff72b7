"""Builds the model that a configuration names."""

from typing import Any

from sparsectr.config import ModelConfig
from sparsectr.models.mean_pooling import MeanPooling
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.schema import DatasetSchema


def model_from_config(
    config: ModelConfig, schema: DatasetSchema, dtype: str = "float32"
) -> Any:
    """Returns the model with all its weights created.

    Args:
        config: What to build.
        schema: A resolved schema.
        dtype: Keras dtype policy, "float32" or "mixed_bfloat16".

    Returns:
        A `keras.Model` that maps the dict of a request to logits `[B, C]`.
    """
    shared: dict[str, Any] = {
        "schema": schema,
        "width": config.width,
        "embedding_dim": config.embedding_dim,
        "head_units": config.head_units,
        "dropout_rate": config.dropout_rate,
        "dtype": dtype,
    }
    model: Any
    if config.name == "mean_pooling":
        model = MeanPooling(**shared, name="mean_pooling")
    else:
        model = SparseCTR(
            **shared,
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            num_chunks=config.num_chunks,
            num_transition=config.num_transition,
            num_local=config.num_local,
            attention=config.attention,
            temporal_bias=config.temporal_bias,
            name="sparse_ctr",
        )
    model.build()
    return model
