"""MeanPooling: the plainest model of a history, to compare with.

Axes: B batch, L history length, C candidates, d width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction_layer import PredictionLayer
from sparsectr.schema import DatasetSchema


@keras.saving.register_keras_serializable(package="sparsectr")
class MeanPooling(keras.Model):
    """A candidate beside the mean of the history.

        E_C' = relu([c, h, c * h] W),   h = mean of the valid behaviours

    Embeddings, reader and prediction layer are those of `SparseCTR`; order
    and time are not read.

    Args:
        schema: A resolved `DatasetSchema`, or its dict.
        width: d.
        embedding_dim: Width of the embedding tables.
        head_units: Hidden units of the prediction MLP.
        dropout_rate: Dropout on embedded behaviours and candidates.

    Call arguments:
        inputs: Those of `SparseCTR`.

    Returns:
        float32 `[B, C]`, logits.
    """

    def __init__(
        self,
        schema: DatasetSchema | Mapping[str, Any],
        width: int = 32,
        embedding_dim: int = 32,
        head_units: int = 32,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # Dense features are transformed before they are cast.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(schema, DatasetSchema):
            schema = DatasetSchema.from_dict(schema)
        self.schema = schema
        self.width = width
        self.embedding_dim = embedding_dim
        self.head_units = head_units
        self.dropout_rate = dropout_rate
        policy = self.dtype_policy
        self.embedding = RequestEmbedding(
            schema, embedding_dim, width, name="embedding", dtype=policy
        )
        self.dropout = keras.layers.Dropout(
            dropout_rate, name="dropout", dtype=policy
        )
        self.fusion = keras.layers.Dense(
            width, activation="relu", name="fusion", dtype=policy
        )
        self.prediction = PredictionLayer(
            width, head_units, name="prediction", dtype=policy
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        user_width = len(self.schema.user_fields) * self.embedding_dim
        self.embedding.build()
        self.fusion.build((None, None, 3 * self.width))
        self.prediction.build(
            (None, None, self.width),
            (None, user_width) if user_width else None,
        )
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        behaviors = self.dropout(
            self.embedding.behaviors(inputs), training=training
        )
        candidates = self.dropout(
            self.embedding.candidates(inputs), training=training
        )
        valid = ops.cast(inputs["behavior_time"] > 0, behaviors.dtype)
        # Summed as a product: a running sum in bfloat16 would stop growing.
        total = ops.einsum("bl,bld->bd", valid, behaviors)
        count = ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1.0)
        history = ops.expand_dims(total / count, 1)
        history = history + ops.zeros_like(candidates)  # [B, C, d]
        fused = self.fusion(
            ops.concatenate(
                [candidates, history, candidates * history], axis=-1
            )
        )
        return self.prediction(fused, self.embedding.user(inputs))

    def compute_output_shape(self, inputs_shape: Mapping[str, Any]) -> Any:
        field = self.schema.candidate_fields[0].name
        return inputs_shape[f"candidate_{field}"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": dataclasses.asdict(self.schema),
            "width": self.width,
            "embedding_dim": self.embedding_dim,
            "head_units": self.head_units,
            "dropout_rate": self.dropout_rate,
        }
