"""What the recipes have in common that compare categories.

Nothing here imports TensorFlow.
"""

import dataclasses
from typing import NamedTuple

from sparsectr.config_fields import config_field
from sparsectr.errors import InputError, did_you_mean
from sparsectr.recipes.retrieval_recipe import RetrievalRecipe
from sparsectr.schema import CategoricalField, DatasetSchema


class CategoryFields(NamedTuple):
    """The field of a candidate that is compared, and that of a behavior."""

    candidate: CategoricalField
    behavior: CategoricalField


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoryRecipe(RetrievalRecipe):
    """A model that compares the category of behaviors with a candidate's."""

    category: str = config_field(
        "",
        "Field of a candidate that is its category, and shares its table with "
        "a field of behaviors; empty for the only one that can be, apart from "
        "the one with the most values, which is the item itself.",
    )

    def check_schema(self, schema: DatasetSchema) -> None:
        """Checks that the schema has a category.

        Raises:
            InputError: If it has none, or several and the recipe says none.
        """
        super().check_schema(schema)
        self.category_fields(schema)

    def category_fields(self, schema: DatasetSchema) -> CategoryFields:
        """Returns the fields that are compared.

        Args:
            schema: The fields, resolved.

        Raises:
            InputError: As `check_schema`.
        """
        shared = _shared_fields(schema)
        if self.category:
            if self.category in shared:
                return shared[self.category]
            raise InputError(
                f"--model.category must be one of {_listed(shared)}, the ids "
                "that candidates and behaviors share. Received: "
                f"{self.category!r}." + did_you_mean(self.category, shared)
            )
        sizes = {
            name: schema.table(fields.candidate.table).size or 0
            for name, fields in shared.items()
        }
        item = max(sizes, key=lambda name: sizes[name], default="")
        possible = {n: fields for n, fields in shared.items() if n != item}
        if len(possible) == 1:
            return next(iter(possible.values()))
        how_many = "several" if possible else "none"
        raise InputError(
            f"{self.name} needs to know the category of a candidate, and there "
            f"are {how_many} that it could be: say --model.category, one of "
            f"{_listed(possible or shared)}."
        )


def _shared_fields(schema: DatasetSchema) -> dict[str, CategoryFields]:
    """Returns the ids that candidates and behaviors share, by their name."""
    behaviors = {
        field.table: field
        for field in reversed(schema.behavior_fields)
        if not field.is_set
    }
    return {
        field.name: CategoryFields(field, behaviors[field.table])
        for field in schema.candidate_fields
        if not field.is_set and field.table in behaviors
    }


def _listed(fields: dict[str, CategoryFields]) -> str:
    return ", ".join(fields) or "no field"
