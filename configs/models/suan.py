"""SUAN: Stacked Unified Attention Network (RecSys 2025).

Command: `python -m sparsectr.train --dataset=movielens --model.name=suan`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import (
    ModelRecipe,
    Preset,
    RequestShape,
    StateSpec,
    StateTensor,
    TableSpec,
    embedding_flops,
    head_flops,
    user_state,
    user_width,
)
from sparsectr.ops.query_blocks import query_block_bounds
from sparsectr.schema import DatasetSchema

FEED_FORWARD_MULTIPLIER = 3
"""Hidden width of the feed-forward network in widths d."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SUANRecipe(ModelRecipe):
    """Causal attention, attention to the user's fields, and a gate of both."""

    network = "sparsectr.models.suan:SUAN"

    presets: ClassVar[Mapping[str, Preset]] = {
        "published": {
            "head_units": (1024, 512, 256),
            "head_activation": "dice",
            "num_heads": 2,
        },
    }

    num_blocks: int = config_field(2, "Number of blocks.", minimum=1)
    num_heads: int = config_field(
        8, "Attention heads; must divide width.", minimum=1
    )
    num_positions: int = config_field(
        1024,
        "Places, counted back from the request, that have an embedding, and "
        "distances that have a bias; farther ones share the last.",
        minimum=2,
    )
    block_dropout_rate: float = config_field(
        0.0, "Dropout behind each part of a block, in training."
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

    def num_user_tokens(self, schema: DatasetSchema) -> int:
        """Returns how many tokens a user is: one a field, one for numbers."""
        return len(schema.ids("user")) + bool(schema.numbers("user"))

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns what candidates read in every block, beside the profile."""
        blocks, width = self.num_blocks, self.width
        rows = (blocks, "L", width)
        tensors = [
            StateTensor("keys", "float32", rows, "Keys of every block"),
            StateTensor("values", "float32", rows, "Values of every block"),
            StateTensor("time", "int64", ("L",), "Unix seconds of each"),
        ]
        tokens = self.num_user_tokens(schema)
        if tokens:
            shape = (blocks, tokens, width)
            tensors += [
                StateTensor("user_keys", "float32", shape, "Those of the user"),
                StateTensor(
                    "user_values", "float32", shape, "Those of the user"
                ),
                StateTensor(
                    "gate",
                    "float32",
                    (blocks, width),
                    "Share of what is read of the history, in every block",
                ),
            ]
        return StateSpec(
            (*tensors, *user_state(self, schema)), self.binds_state(schema)
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass.

        Masked keys are counted up to the end of a block of queries.
        """
        tokens = self.num_user_tokens(schema)
        products = sum(
            self._block_products(
                shape, tokens, is_last=index == self.num_blocks - 1
            )
            for index in range(self.num_blocks)
        )
        products += len(schema.numbers("user")) * self.embedding_dim
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * products
            + head_flops(self, shape, 2 * self.width, user_width(self, schema))
        )

    def _block_products(
        self, shape: RequestShape, tokens: int, *, is_last: bool
    ) -> int:
        """Returns products of one block for one request."""
        width, square = self.width, self.width**2
        length, candidates = shape.length, shape.num_candidates
        # The gate is the mean of what behaviors read, of the last block too.
        attending = 0 if is_last and not tokens else length
        written = 0 if is_last else length
        bounds = query_block_bounds(length)
        pairs = sum((end - start) * end for start, end in bounds)
        scores = (pairs if attending else 0) + candidates * length
        products = 2 * scores * width
        products += (length + candidates) * 2 * square  # keys and values
        products += (attending + candidates) * 2 * square
        rows = written + candidates
        products += rows * 3 * FEED_FORWARD_MULTIPLIER * square
        if tokens:
            products += (attending + candidates) * 2 * (square + tokens * width)
            products += 2 * tokens * self.embedding_dim * width
            products += 3 * max(1, width // 4) * width
        return products

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns those of the fields, and that of positions."""
        return (
            *super().tables(schema),
            TableSpec("sequence_position", self.num_positions, self.width),
        )
