"""TWIN: a search that scores as its attention does (KDD 2023).

Command: `python -m sparsectr.train --dataset=movielens --model.name=twin`
Measured: not yet under the leaderboard's protocol.

What belongs to an item and what to the event is read off the schema
(`sparsectr.recipes.cross_features`). Inherent are the behaviors' ids and sets
whose table a field of candidates shares, and their numbers that candidates have
by the same name: a category, a brand, a price. Cross features are all others,
such as the type of an action, a rating or the seconds watched, and the time
fields; beside them there is always the gap to the request. A data set without
any has the gap alone.
"""

import dataclasses

from sparsectr.errors import InputError
from sparsectr.model_recipe import RequestShape, StateTensor, TableSpec
from sparsectr.recipes.cross_features import (
    BehaviorColumns,
    behavior_columns,
    total_width,
)
from sparsectr.recipes.retrieval_recipe import RetrievalRecipe
from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class TWINRecipe(RetrievalRecipe):
    """The behaviors that the attention itself weighs highest."""

    network = "sparsectr.models.twin:TWIN"

    def check_schema(self, schema: DatasetSchema) -> None:
        """Checks that behaviors have something of an item.

        Raises:
            InputError: If no field of a behavior is one of candidates.
        """
        super().check_schema(schema)
        if not self.columns(schema).inherent:
            raise InputError(
                f"{self.name} compares candidates with behaviors by the fields "
                f"that they share, and in {schema.name} they share none."
            )

    def columns(self, schema: DatasetSchema) -> BehaviorColumns:
        """Returns the fields of a behavior, told apart."""
        return behavior_columns(
            schema, self.embedding_dim, self.binds_state(schema)
        )

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the tables of the schema, and that of the gaps."""
        num_rows = TIME_FIELDS[GAP_TO_REQUEST].num_rows
        gap = TableSpec("retrieved_gap", num_rows, self.embedding_dim)
        return (*super().tables(schema), gap)

    def search_state(self, schema: DatasetSchema) -> tuple[StateTensor, ...]:
        """Returns keys, and what cross features add to their scores."""
        keys = StateTensor(
            "keys", "float32", ("L", self.width), "Keys of the behaviors"
        )
        cross = StateTensor(
            "cross",
            "float32",
            ("L", self.num_heads),
            "What the event itself adds to the score of each head",
        )
        return (keys, cross) if self.columns(schema).cross else (keys,)

    def search_flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns operations of search and long interest for one request."""
        width, columns = self.width, self.columns(schema)
        length, num_candidates = shape.length, shape.num_candidates
        cross = total_width(columns.cross) + self.embedding_dim
        products = total_width(columns.inherent) * width
        products += cross * self.num_heads
        products += (width + self.embedding_dim) * width
        products *= length
        num_read = min(self.num_retrieved, length)
        products += num_candidates * (length + 2 * num_read) * width
        return 2 * (products + num_candidates * 2 * width * width)
