"""SIM with soft search: retrieval by inner products (CIKM 2020).

Command: `python -m sparsectr.train --dataset=movielens --model.name=sim_soft`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import RequestShape, TableSpec
from sparsectr.recipes.retrieval_recipe import RetrievalRecipe
from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIMSoftRecipe(RetrievalRecipe):
    """The behaviors whose learned code is most like the candidate's."""

    network = "sparsectr.models.sim_soft:SIMSoft"

    search_width: int = config_field(
        64, "Width of the vectors that the search compares.", minimum=1
    )
    auxiliary_weight: float = config_field(
        1.0, "Weight of the loss that trains the search."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.auxiliary_weight > 0.0,
            "auxiliary_weight",
            "be above 0",
            self.auxiliary_weight,
        )

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the tables of the schema, and that of the gaps."""
        num_rows = TIME_FIELDS[GAP_TO_REQUEST].num_rows
        gap = TableSpec("retrieved_gap", num_rows, self.embedding_dim)
        return (*super().tables(schema), gap)

    def search_flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns operations of search and long interest for one request."""
        length, num_candidates = shape.length, shape.num_candidates
        coded = (length + num_candidates) * self.width
        products = (coded + num_candidates * length) * self.search_width
        products += self.attention_products(
            shape,
            length,
            min(self.num_retrieved, length),
            self.width + self.embedding_dim,
        )
        return 2 * products
