"""DIN: Deep Interest Network, target attention over the history (KDD 2018).

Command: `python -m sparsectr.train --dataset=movielens --model.name=din`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from sparsectr.config_fields import config_field
from sparsectr.model_recipe import (
    ModelRecipe,
    Preset,
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
class DINRecipe(ModelRecipe):
    """Behaviours weighted by what the candidate is like."""

    network = "sparsectr.models.din:DIN"
    reads_gap_in_score = True

    # From memory of the paper, not checked against its text:
    # The head of the paper's Figure 2, with its Dice. An activation unit of 80
    # and 40 is that of the authors' later code and of other libraries (EasyRec,
    # DeepCTR, FuxiCTR); the figure has one of 36.
    presets: ClassVar[Mapping[str, Preset]] = {
        "published": {
            "attention_units_1": 80,
            "attention_units_2": 40,
            "attention_activation": "dice",
            "normalize": "none",
            "head_units": (200, 80),
            "head_activation": "dice",
        }
    }

    attention_units_1: int = config_field(
        80, "First hidden width of the activation unit.", minimum=1
    )
    attention_units_2: int = config_field(
        40, "Second hidden width of the activation unit.", minimum=1
    )
    attention_activation: str = config_field(
        "sigmoid",
        "Activation of the activation unit; dice has running statistics, of "
        "pairs of a candidate and a behavior.",
        choices=("sigmoid", "dice"),
    )
    normalize: str = config_field(
        "none",
        "What the weights of behaviours are divided by: none, which keeps how "
        "much of a history is like the candidate; length, their number; "
        "softmax, so that they sum to one.",
        choices=("none", "length", "softmax"),
    )

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns the embedded behaviours, beside the profile."""
        rows = ("L", self.width)
        behaviors = StateTensor(
            "behaviors", "float32", rows, "Embedded behaviors"
        )
        valid = StateTensor("is_valid", "bool", ("L",), "True for a behavior")
        time = StateTensor("time", "int64", ("L",), "Unix seconds of each")
        return StateSpec(
            (
                behaviors,
                valid,
                *((time,) if self.scores_gap(schema) else ()),
                *user_state(self, schema),
            ),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass."""
        width = self.width
        first, second = self.attention_units_1, self.attention_units_2
        pairs = shape.num_candidates * shape.length
        unit = (shape.num_candidates + pairs) * width * first
        unit += pairs * (first * second + second)
        interest = pairs * width
        return (
            embedding_flops(self, schema, shape)
            + 2 * shape.batch_size * (unit + interest)
            + head_flops(self, shape, 2 * width, user_width(self, schema))
        )
