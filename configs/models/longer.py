"""LONGER: merged behaviors, a transformer over the newest (RecSys 2025).

Command: `python -m sparsectr.train --dataset=movielens --model.name=longer`
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
from sparsectr.schema import DatasetSchema
from sparsectr.time_fields import GAP_TO_REQUEST, TIME_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LONGERRecipe(ModelRecipe):
    """Neighbors merged to tokens, of which the newest attend to all."""

    network = "sparsectr.models.longer:LONGER"

    # Merged by 4 and 8, K d wide; the second with a transformer in each group.
    presets: ClassVar[Mapping[str, Preset]] = {
        "merge-4": {"merge": 4, "merged_width": 128},
        "merge-8": {
            "merge": 8,
            "merged_width": 256,
            "inner_transformer": True,
        },
    }

    merge: int = config_field(
        4, "Neighboring behaviors K that become one token.", minimum=1
    )
    merged_width: int = config_field(
        0,
        "Width of a token: 0 for width, by a projection; K times width is "
        "published, and has none.",
        minimum=0,
    )
    inner_transformer: bool = config_field(
        False, "Whether the behaviors of a token attend to each other first."
    )
    num_queries: int = config_field(
        100, "Newest tokens that attend, and go on to later layers.", minimum=1
    )
    num_layers: int = config_field(
        2,
        "Layers: the first reads all tokens, the others the newest.",
        minimum=1,
    )
    num_heads: int = config_field(
        8, "Attention heads; must divide the width of a token.", minimum=1
    )
    feed_forward_multiplier: int = config_field(
        4, "Hidden width of the feed-forward networks in widths.", minimum=1
    )
    max_positions: int = config_field(
        1024,
        "Positions that have a row of their own, from the newest; older "
        "behaviors share the last.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = {"merged_width": self.token_width}
        if self.inner_transformer:
            widths["width"] = self.width
        for name, width in widths.items():
            require(
                width % self.num_heads == 0,
                "num_heads",
                f"divide {name}={width}",
                self.num_heads,
            )

    @property
    def token_width(self) -> int:
        """Width of a merged token and of all layers."""
        return self.merged_width or self.width

    @property
    def projects_tokens(self) -> bool:
        """Whether concatenated behaviors are brought to another width."""
        return self.merge * self.width != self.token_width

    def num_globals(self, schema: DatasetSchema) -> int:
        """Returns the global tokens without a candidate: CLS, and the user."""
        return 2 if user_width(self, schema) else 1

    def binds_state(self, schema: DatasetSchema) -> bool:
        """Whether a user state holds for one request time alone: always."""
        return True

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the embedding tables of the model."""
        width = self.embedding_dim
        gaps = TIME_FIELDS[GAP_TO_REQUEST].num_rows
        positions = self.max_positions + 1
        return (
            *super().tables(schema),
            TableSpec("gap", gaps, width),
            TableSpec("behavior_position", positions, self.width + width),
        )

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns keys and values of every layer, and the global rows."""
        width = self.token_width
        tokens = "L" if self.merge == 1 else f"L/{self.merge}"
        count = self.num_globals(schema)
        tensors = []
        for layer in range(self.num_layers):
            rows = (
                tokens if layer == 0 else f"min({tokens}, {self.num_queries})"
            )
            tensors += [
                StateTensor(
                    f"{name}_{layer}",
                    "float32",
                    (rows, width),
                    f"{name.capitalize()} of the tokens in layer {layer}",
                )
                for name in ("keys", "values")
            ]
        tensors += [
            StateTensor(
                f"global_{name}",
                "float32",
                (self.num_layers, count, width),
                f"{name.capitalize()} of the global tokens in every layer",
            )
            for name in ("keys", "values")
        ]
        tensors += [
            StateTensor(
                "global_rows",
                "float32",
                (count * width,),
                "The global tokens behind the last layer",
            ),
            StateTensor("is_valid", "bool", (tokens,), "True for a token"),
        ]
        return StateSpec((*tensors, *user_state(self, schema)), True)

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        width, token_width = self.width, self.token_width
        count, length = shape.num_candidates, shape.length
        num_globals, user = self.num_globals(schema), user_width(self, schema)
        num_tokens = -(-length // self.merge)
        num_newest = min(num_tokens, self.num_queries)
        feed_forward = 2 * self.feed_forward_multiplier
        total = length * (2 * width + self.embedding_dim) * width
        if self.inner_transformer:
            members = num_tokens * self.merge * width
            total += members * ((4 + feed_forward) * width + 2 * self.merge)
        if self.projects_tokens:
            total += num_tokens * self.merge * width * token_width
        total += (user + count * width) * token_width
        for layer in range(self.num_layers):
            keys = num_globals + (num_tokens if layer == 0 else num_newest)
            rows = num_globals + count
            if layer < self.num_layers - 1:
                rows += num_newest
            total += 2 * (keys + count) * token_width**2  # keys and values
            total += (2 + feed_forward) * rows * token_width**2
            total += 2 * rows * keys * token_width
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * total
            + head_flops(
                self, shape, token_width, num_globals * token_width + user
            )
        )
