"""BST: Behavior Sequence Transformer (DLP-KDD 2019).

Command: `python -m sparsectr.train --dataset=movielens --model.name=bst`
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
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class BSTRecipe(ModelRecipe):
    """A transformer over the behaviours and, last, the candidate."""

    network = "sparsectr.models.bst:BST"

    presets: ClassVar[Mapping[str, Preset]] = {
        "published": {
            "head_units": (1024, 512, 256),
            "head_activation": "leaky_relu",
            "block_dropout_rate": 0.2,
        },
    }

    mode: str = config_field(
        "listwise",
        "listwise: behaviors read those before them and no candidate, so that "
        "all candidates share them; faithful: as published, the sequence with "
        "its candidate anew for each, whose attention costs C times L squared.",
        choices=("listwise", "faithful"),
    )
    bidirectional: bool = config_field(
        True, "Whether, in mode faithful, rows also read those after them."
    )
    pool: str = config_field(
        "target",
        "What the head reads of the last block: target, the candidate's row; "
        "mean, the mean of all rows.",
        choices=("target", "mean"),
    )
    num_blocks: int = config_field(1, "Number of blocks.", minimum=1)
    num_heads: int = config_field(
        8, "Attention heads; must divide width.", minimum=1
    )
    feed_forward_multiplier: int = config_field(
        4, "Hidden width of the feed-forward network in widths d.", minimum=1
    )
    block_dropout_rate: float = config_field(
        0.0, "Dropout behind both halves of a block, in training."
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

    @property
    def reads_last_rows(self) -> bool:
        """Whether the behaviours' rows of the last block are read."""
        return self.pool == "mean"

    def binds_state(self, schema: DatasetSchema) -> bool:
        """True: the time from a behaviour to the request is in its row."""
        return True

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns what candidates read, beside the profile."""
        tensors: tuple[StateTensor, ...]
        if self.mode == "faithful":
            tensors = (
                StateTensor(
                    "rows", "float32", ("L", self.width), "Embedded behaviors"
                ),
            )
        else:
            rows = (self.num_blocks, "L", self.width)
            tensors = (
                StateTensor("keys", "float32", rows, "Keys of every block"),
                StateTensor("values", "float32", rows, "Values of every block"),
            )
            if self.reads_last_rows:
                tensors += (
                    StateTensor(
                        "sum", "float32", (self.width,), "Sum of the last rows"
                    ),
                )
        valid = StateTensor("is_valid", "bool", ("L",), "True for a behavior")
        return StateSpec(
            (*tensors, valid, *user_state(self, schema)),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass.

        Masked keys are counted where they are not skipped: all of them in
        mode faithful, and in listwise those up to the end of a block of
        queries.
        """
        products = sum(
            self._block_products(
                shape,
                reads_rows=self.reads_last_rows or index < self.num_blocks - 1,
            )
            for index in range(self.num_blocks)
        )
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * products
            + head_flops(self, shape, 2 * self.width, user_width(self, schema))
        )

    def _block_products(self, shape: RequestShape, *, reads_rows: bool) -> int:
        """Returns products of one block for one request."""
        square, length = self.width**2, shape.length
        # Of a row that asks: query, result and feed-forward network.
        asking = (2 + 2 * self.feed_forward_multiplier) * square
        if self.mode == "faithful":
            rows = length + 1
            queries = rows if reads_rows else 1
            products = rows * 2 * square + queries * asking
            products += 2 * queries * rows * self.width
            return shape.num_candidates * products
        bounds = query_block_bounds(length)
        pairs = sum((end - start) * end for start, end in bounds)
        products = shape.num_candidates * (2 * square + asking)
        products += 2 * shape.num_candidates * length * self.width
        products += length * 2 * square
        if reads_rows:
            products += length * asking + 2 * pairs * self.width
        return products

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns those of the fields, and that of the gap to the request."""
        num_rows = TIME_FIELDS[GAP_TO_REQUEST].num_rows
        gap = TableSpec("gap", num_rows, self.width)
        return (*super().tables(schema), gap)
