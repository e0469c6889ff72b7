"""Mean pooling: the plainest model of a history, to compare with.

Command: `python -m sparsectr.train --dataset=movielens
--model.name=mean_pooling`
Measured: README.md, "Results".
"""

import dataclasses

from sparsectr.model_recipe import (
    ModelRecipe,
    RequestShape,
    StateSpec,
    StateTensor,
    embedding_flops,
    prediction_flops,
    user_state,
)
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanPoolingRecipe(ModelRecipe):
    """A candidate beside the mean of the history."""

    network = "sparsectr.models.mean_pooling:MeanPooling"

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns the mean of the history, beside the profile."""
        mean = StateTensor(
            "history", "float32", (self.width,), "Mean of the behaviors"
        )
        return StateSpec(
            (mean, *user_state(self, schema)), self.binds_state(schema)
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        fusion = shape.num_candidates * 3 * self.width * self.width
        mean = shape.length * self.width
        return (
            embedding_flops(self, schema, shape)
            + prediction_flops(self, schema, shape)
            + 2 * shape.batch_size * (fusion + mean)
        )
