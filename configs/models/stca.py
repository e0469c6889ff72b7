"""STCA: stacked attention of the candidate to the history (WWW 2026).

Command: `python -m sparsectr.train --dataset=movielens --model.name=stca`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import (
    ModelRecipe,
    RequestShape,
    StateSpec,
    StateTensor,
    TableSpec,
    embedding_flops,
    head_flops,
    user_state,
    user_width,
)
from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class STCARecipe(ModelRecipe):
    """A candidate asks the history several times, behaviors ask nothing."""

    network = "sparsectr.models.stca:STCA"

    num_layers: int = config_field(
        2, "How often a candidate reads the history.", minimum=1
    )
    num_heads: int = config_field(
        8, "Attention heads; must divide width.", minimum=1
    )
    feed_forward_multiplier: int = config_field(
        3, "Hidden width of every feed-forward network in widths d.", minimum=1
    )
    reads_gap: bool = config_field(
        False,
        "Whether behaviors have the time from them to the request, which binds "
        "a user state to one request time.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width % self.num_heads == 0,
            "num_heads",
            f"divide width={self.width}",
            self.num_heads,
        )

    def forms_keys(self, num_candidates: int | None) -> bool:
        """Whether keys and values of behaviors are worth making.

        For few candidates, whose heads together are fewer than the columns of
        a key, it is less work to take the products with their matrices on the
        candidates' side.

        Args:
            num_candidates: C; `None` where it is not known, which counts as
                many.
        """
        if num_candidates is None:
            return True
        return num_candidates * (self.num_heads - 1) > self.width

    def binds_state(self, schema: DatasetSchema) -> bool:
        """Whether a user state holds for one request time alone."""
        return self.reads_gap or super().binds_state(schema)

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the embedding tables of the model."""
        tables = super().tables(schema)
        if not self.reads_gap:
            return tables
        num_rows = TIME_FIELDS[GAP_TO_REQUEST].num_rows
        return (*tables, TableSpec("gap", num_rows, self.embedding_dim))

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns what each layer reads of the behaviors."""
        rows = tuple(
            StateTensor(
                f"rows_{layer}",
                "float32",
                ("L", self.width),
                f"What layer {layer} reads of each behavior",
            )
            for layer in range(self.num_layers)
        )
        valid = StateTensor("is_valid", "bool", ("L",), "True for a behavior")
        return StateSpec(
            (*rows, valid, *user_state(self, schema)), self.binds_state(schema)
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        width, heads, layers = self.width, self.num_heads, self.num_layers
        count, length = shape.num_candidates, shape.length
        feed_forward = 3 * self.feed_forward_multiplier * width**2
        total = layers * length * feed_forward
        total += (layers + 1) * count * feed_forward
        # What is read so far beside the candidate, 2 to M + 1 rows wide.
        total += count * width**2 * sum(range(2, layers + 2))
        total += layers * 2 * count * width**2  # queries and results
        if self.forms_keys(count):
            attention = 2 * length * width**2 + 2 * count * length * width
        else:
            attention = 2 * count * width**2
            attention += 2 * count * heads * length * width
        total += layers * attention
        if self.reads_gap:
            total += length * self.embedding_dim * width
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * total
            + head_flops(self, shape, 2 * width, user_width(self, schema))
        )
