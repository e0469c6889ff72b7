"""HSTU: hierarchical sequential transduction unit (ICML 2024).

Command: `python -m sparsectr.train --dataset=movielens --model.name=hstu`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import (
    ModelRecipe,
    RequestShape,
    StateSpec,
    StateTensor,
    embedding_flops,
    head_flops,
    user_state,
    user_width,
)
from sparsectr.ops.query_blocks import query_block_bounds
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class HSTURecipe(ModelRecipe):
    """Causal attention without a softmax, gated by its own query."""

    network = "sparsectr.models.hstu:HSTU"

    num_blocks: int = config_field(2, "Number of HSTU blocks.", minimum=1)
    num_heads: int = config_field(
        8, "Attention heads; must divide width.", minimum=1
    )
    attention_normalizer: int = config_field(
        128,
        "N, the constant by which sums of values are divided.",
        minimum=1,
    )
    num_positions: int = config_field(
        1024,
        "Distances with a bias of their own; farther keys share the last.",
        minimum=1,
    )
    block_dropout_rate: float = config_field(
        0.0, "Dropout before the output projection of a block, in training."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width % self.num_heads == 0,
            "num_heads",
            f"divide width={self.width}",
            self.num_heads,
        )
        require(
            0.0 <= self.block_dropout_rate < 1.0,
            "block_dropout_rate",
            "be at least 0 and below 1",
            self.block_dropout_rate,
        )

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns keys and values of every block, beside the profile."""
        rows = (self.num_blocks, "L", self.width)
        return StateSpec(
            (
                StateTensor("keys", "float32", rows, "Keys of every block"),
                StateTensor("values", "float32", rows, "Values of every block"),
                StateTensor("time", "int64", ("L",), "Unix seconds of each"),
                *user_state(self, schema),
            ),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass.

        Masked keys are counted up to the end of a block of queries.
        """
        width, length = self.width, shape.length
        candidates, last = shape.num_candidates, self.num_blocks - 1
        bounds = query_block_bounds(length)
        pairs = sum((end - start) * end for start, end in bounds)
        # Four projections of a row, of which the last block's history needs
        # two, and that of its result.
        rows = (5 * last + 2) * length + 5 * self.num_blocks * candidates
        scores = last * pairs + self.num_blocks * candidates * length
        products = rows * width**2 + 2 * scores * width
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * products
            + head_flops(self, shape, 2 * width, user_width(self, schema))
        )
