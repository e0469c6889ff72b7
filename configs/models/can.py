"""CAN: Co-Action Network, candidates' ids as small networks (WSDM 2022).

Command: `python -m sparsectr.train --dataset=movielens --model.name=can`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from sparsectr.config_fields import config_field
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


class Pair(NamedTuple):
    """A candidate's and a behavior's field whose ids mean the same.

    Attributes:
        candidate: Name of the candidate's field.
        behavior: Name of the behavior's field.
        table: The table of the schema that both share.
    """

    candidate: str
    behavior: str
    table: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CANRecipe(ModelRecipe):
    """Ids of candidates as networks that ids of behaviors pass."""

    network = "sparsectr.models.can:CAN"

    # What the authors' code puts on top; the layers of the co-action are the
    # defaults below.
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": {"head_units": (200, 80), "head_activation": "dice"}
    }

    feed_width: int = config_field(
        16, "Numbers of a behavior's id that enter the network.", minimum=1
    )
    co_action_units_1: int = config_field(
        8, "Width of the network's first layer.", minimum=1
    )
    co_action_units_2: int = config_field(
        4, "Width of the network's second layer.", minimum=1
    )
    num_orders: int = config_field(
        3, "Powers of a behavior's numbers that enter the network.", minimum=1
    )
    pool: str = config_field(
        "sum",
        "How behaviors are put together: their sum, or their mean.",
        choices=("sum", "mean"),
    )

    def pairs(self, schema: DatasetSchema) -> tuple[Pair, ...]:
        """Returns the fields that candidates and behaviors share.

        Raises:
            ValueError: If there is none.
        """
        found = tuple(
            Pair(candidate.name, behavior.name, candidate.table)
            for candidate in schema.candidate_fields
            for behavior in schema.behavior_fields
            if candidate.table == behavior.table
            and not (candidate.is_set or behavior.is_set)
        )
        if not found:
            tables = {
                prefix: [f.table for f in fields if not f.is_set]
                for prefix, fields in (
                    ("candidate", schema.candidate_fields),
                    ("behavior", schema.behavior_fields),
                )
            }
            raise ValueError(
                "`schema` must have an id of candidates that shares a table "
                "with one of behaviors, and is no set. Received tables: "
                f"candidate={tables['candidate']}, "
                f"behavior={tables['behavior']}"
            )
        return found

    @property
    def induction_width(self) -> int:
        """Numbers of a candidate's id: the network's two matrices."""
        hidden, last = self.co_action_units_1, self.co_action_units_2
        return self.feed_width * hidden + hidden * last

    @property
    def pair_width(self) -> int:
        """Numbers that come of a pair of fields."""
        units = self.co_action_units_1 + self.co_action_units_2
        return self.num_orders * units

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the embedding tables, two of them for each shared one."""
        own = []
        for name in dict.fromkeys(p.table for p in self.pairs(schema)):
            rows = schema.table(name).size or 0
            own += [
                TableSpec(
                    f"induction_{name}", rows, self.induction_width, name
                ),
                TableSpec(f"feed_{name}", rows, self.feed_width, name),
            ]
        return (*super().tables(schema), *own)

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns the pooled history and what enters the co-action."""
        history = StateTensor(
            "history", "float32", (self.width,), "Pooled embedded behaviors"
        )
        feeds = tuple(
            StateTensor(
                f"feed_{name}",
                "float32",
                ("L", self.feed_width),
                f"What {name} of each behavior feeds, 0 for padding",
            )
            for name in dict.fromkeys(p.behavior for p in self.pairs(schema))
        )
        count = StateTensor("num_behaviors", "int32", (), "How many there are")
        return StateSpec(
            (
                history,
                *feeds,
                *((count,) if self.pool == "mean" else ()),
                *user_state(self, schema),
            ),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        count, length = shape.num_candidates, shape.length
        hidden, last = self.co_action_units_1, self.co_action_units_2
        pairs = len(self.pairs(schema))
        co_action = length * self.feed_width * hidden + hidden * last
        co_action *= count * self.num_orders * pairs
        own = self.width + pairs * self.pair_width
        shared = self.width + user_width(self, schema)
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * (co_action + length * self.width)
            + head_flops(self, shape, own, shared)
        )
