"""What the recipes of two-stage retrieval models have in common.

They search the history for each candidate and read what they find, beside the
newest behaviors: SIM, ETA, TWIN. Nothing here imports TensorFlow.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

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
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalRecipe(ModelRecipe):
    """A short interest in the newest behaviors and a long one in found ones.

    A subclass says what its search adds to state and operations.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {"head_units": (512, 128, 64)}
    }
    reads_gap_in_score = True

    num_heads: int = config_field(8, "Attention heads H.", minimum=1)
    num_recent: int = config_field(
        50, "Newest behaviors that the short interest reads.", minimum=1
    )
    num_retrieved: int = config_field(
        50, "Behaviors k that a candidate retrieves.", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width % self.num_heads == 0,
            "num_heads",
            f"divide width={self.width}",
            self.num_heads,
        )

    def search_state(self, schema: DatasetSchema) -> tuple[StateTensor, ...]:
        """Returns what the search needs of a history beside rows and times."""
        return ()

    def search_flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns operations of search and long interest for one request."""
        raise NotImplementedError

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns the embedded behaviors with their times, and the profile."""
        rows = ("L", self.width)
        behaviors = StateTensor(
            "behaviors", "float32", rows, "Embedded behaviors"
        )
        time = StateTensor(
            "time", "int64", ("L",), "Unix seconds of each, 0 for padding"
        )
        search = self.search_state(schema)
        return StateSpec(
            (behaviors, time, *search, *user_state(self, schema)),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        num_recent = min(self.num_recent, shape.length)
        short = self.attention_products(
            shape, num_recent, num_recent, self.width
        )
        request = 2 * short + self.search_flops(schema, shape)
        return (
            embedding_flops(self, schema, shape)
            + shape.batch_size * request
            + head_flops(self, shape, 3 * self.width, user_width(self, schema))
        )

    def attention_products(
        self, shape: RequestShape, num_rows: int, num_read: int, row_width: int
    ) -> int:
        """Returns multiplications of one target attention of a request.

        Args:
            shape: The batch.
            num_rows: Behaviors that become keys and values.
            num_read: Behaviors that a candidate reads.
            row_width: Columns of a behavior.
        """
        width, num_candidates = self.width, shape.num_candidates
        products = num_rows * row_width * 2 * width
        products += num_candidates * 2 * width * width
        return products + num_candidates * num_read * 2 * width
