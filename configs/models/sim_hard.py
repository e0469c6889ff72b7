"""SIM with hard search: retrieval by category (CIKM 2020).

Command: `python -m sparsectr.train --dataset=movielens --model.name=sim_hard`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses
import itertools

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import RequestShape, StateTensor, TableSpec
from sparsectr.recipes.category_recipe import CategoryRecipe
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIMHardRecipe(CategoryRecipe):
    """The newest behaviors of the candidate's category."""

    network = "sparsectr.models.sim_hard:SIMHard"

    gap_days: tuple[int, ...] = config_field(
        (1, 7, 30, 365),
        "Days at which the time from a retrieved behavior to the request is "
        "cut, ascending.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = (0, *self.gap_days)
        require(
            all(a < b for a, b in itertools.pairwise(bounds)),
            "gap_days",
            "be positive and ascending",
            self.gap_days,
        )

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the tables of the schema, and that of the gaps."""
        num_rows = 2 + len(self.gap_days)
        gap = TableSpec("retrieved_gap", num_rows, self.embedding_dim)
        return (*super().tables(schema), gap)

    def search_state(self, schema: DatasetSchema) -> tuple[StateTensor, ...]:
        """Returns the categories, which are compared as ids."""
        name = self.category_fields(schema).behavior.name
        meaning = f"Id of each behavior's {name}"
        return (StateTensor("category", "int32", ("L",), meaning),)

    def search_flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns operations of the long interest for one request."""
        return 2 * self.attention_products(
            shape,
            shape.length,
            min(self.num_retrieved, shape.length),
            self.width + self.embedding_dim,
        )
