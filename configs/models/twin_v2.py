"""TWIN-V2: TWIN over clusters of behaviors (CIKM 2024).

Command: `python -m sparsectr.train --dataset=movielens --model.name=twin_v2`
Measured: not yet under the leaderboard's protocol.

A cluster holds up to `max_cluster_size` behaviors that come one after another
among those of the same category (`--model.category`) and the same action: equal
in all ids that behaviors alone have, as the type of an action or a rating.
"""

import dataclasses

from configs.models.twin import TWINRecipe
from sparsectr.config_fields import config_field
from sparsectr.model_recipe import StateSpec, StateTensor
from sparsectr.recipes.category_recipe import CategoryRecipe
from sparsectr.schema import CategoricalField, DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class TWINV2Recipe(CategoryRecipe, TWINRecipe):
    """The clusters of behaviors that the attention itself weighs highest."""

    network = "sparsectr.models.twin_v2:TWINV2"
    # Of no use: a state is for one day anyway.
    reads_gap_in_score = False

    num_retrieved: int = config_field(
        100, "Clusters k that a candidate retrieves.", minimum=1
    )
    max_cluster_size: int = config_field(
        20, "Behaviors that a cluster holds at most.", minimum=1
    )

    def group_fields(
        self, schema: DatasetSchema
    ) -> tuple[CategoricalField, ...]:
        """Returns the fields of a behavior that are equal in a cluster.

        The last is the category.
        """
        tables = {field.table for field in schema.candidate_fields}
        actions = [
            field
            for field in schema.behavior_fields
            if not field.is_set and field.table not in tables
        ]
        return (*actions, self.category_fields(schema).behavior)

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns clusters beside behaviors, as of the request's day."""
        spec = super().state_spec(schema)
        return dataclasses.replace(spec, bound_to_request_time=True)

    def search_state(self, schema: DatasetSchema) -> tuple[StateTensor, ...]:
        """Returns the clusters, as many slots as there are behaviors."""
        return (
            *super().search_state(schema),
            StateTensor(
                "clusters",
                "float32",
                ("L", self.width),
                "Means of the embedded behaviors of a cluster",
            ),
            StateTensor(
                "cluster_time", "int64", ("L",), "Mean Unix seconds of each"
            ),
            StateTensor(
                "cluster_size", "int32", ("L",), "Its behaviors, 0 for none"
            ),
        )
