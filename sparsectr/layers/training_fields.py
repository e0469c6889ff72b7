"""What only a log knows of a candidate, learned apart and left out.

Axes: B batch, C candidates.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor
from sparsectr.schema import PADDING_ID, DatasetSchema


@keras.saving.register_keras_serializable(package="sparsectr")
class TrainingFields(keras.layers.Layer):
    """What the fields that only training knows add to a logit.

        logit = model(request) + sum over fields b_field[id],  b[missing] = 0

    A place on the page draws clicks whatever stands there. What it draws is
    learned here, and the model learns the rest; nothing that is served reads
    this. It is the shallow tower of Zhao et al., Recommending What Video to
    Watch Next (RecSys 2019), section 4.2.

    Differs from the paper: for some candidates the fields are hidden as there,
    so that the model alone is calibrated over the places of the log. But
    these candidates move all of their logits by one amount: what they would
    teach of one candidate and another is what the place draws.

    Args:
        schema: A `DatasetSchema` whose tables all have a size, or its dict.
        hidden_share: Share of the candidates whose fields are hidden.
        seed: Of what is hidden.

    Call arguments:
        logits: float32 `[B, C]` of the model.
        inputs: int32 `candidate_<field>` `[B, C]` of every training field,
            and bool `candidate_mask` `[B, C]`.

    Returns:
        float32 `[B, C]`, the logits to train on.

    Raises:
        ValueError: If `hidden_share` is not from 0 to below 1.
    """

    def __init__(
        self,
        schema: DatasetSchema | Mapping[str, Any],
        hidden_share: float,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if not 0.0 <= hidden_share < 1.0:
            raise ValueError(
                "`hidden_share` must be at least 0 and below 1. "
                f"Received: hidden_share={hidden_share}"
            )
        if not isinstance(schema, DatasetSchema):
            schema = DatasetSchema.from_dict(schema)
        self.schema = schema
        self.hidden_share = hidden_share
        self.seed = seed
        self._seed_generator = keras.random.SeedGenerator(seed)

    def build(self, *unused_shapes: Any, **unused: Any) -> None:
        self.biases = {
            field.table: self.add_weight(
                name=f"bias_{field.table}",
                shape=(self.schema.table(field.table).size,),
                initializer="zeros",
            )
            for field in self.schema.training_fields
        }
        self.built = True

    def call(self, logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        total = 0.0
        for field in self.schema.training_fields:
            ids = inputs[f"candidate_{field.name}"]
            bias = ops.take(self.biases[field.table], ids, axis=0)
            total += ops.where(ops.equal(ids, PADDING_ID), 0.0, bias)
        drawn = keras.random.uniform(
            ops.shape(total), seed=self._seed_generator
        )
        hidden = drawn < self.hidden_share
        counted = ops.cast(
            ops.logical_and(hidden, inputs["candidate_mask"]), "float32"
        )
        mean = ops.sum(logits * counted) / ops.maximum(ops.sum(counted), 1.0)
        # The same logits; their gradients are the mean of all of theirs.
        level = ops.stop_gradient(logits) + (mean - ops.stop_gradient(mean))
        return ops.where(hidden, level, logits + total)

    def compute_output_shape(
        self, logits_shape: Any, inputs_shape: Mapping[str, Any]
    ) -> Any:
        return logits_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": dataclasses.asdict(self.schema),
            "hidden_share": self.hidden_share,
            "seed": self.seed,
        }
