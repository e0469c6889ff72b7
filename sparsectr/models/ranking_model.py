"""The contract of all models.

Axes: B batch, L history length, C candidates.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import keras
from keras import ops

from sparsectr.layers.training_fields import TrainingFields
from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import recipe_from_dict
from sparsectr.ops.tensor import Tensor
from sparsectr.schema import DatasetSchema

Inputs = Mapping[str, Tensor]
"""The tensors of a batch of requests, by name; see `RankingModel`."""

UserState = dict[str, Tensor]
"""All that scoring needs of a user, as named dense tensors."""


class Auxiliary(NamedTuple):
    """One more prediction, which training learns from too.

    Attributes:
        weight: Factor of its loss.
        logits: float32 `[B, C]`.
        label: float32 `[B, C]`; `None` for the click.
    """

    weight: float
    logits: Tensor
    label: Tensor | None = None


class Scores(NamedTuple):
    """What `score` returns.

    Attributes:
        logits: float32 `[B, C]`, of a click.
        auxiliary: More predictions, by the name of their loss.
        trace: What was asked for by `trace=True`: how the logits came about.
    """

    logits: Tensor
    auxiliary: dict[str, Auxiliary]
    trace: dict[str, Tensor]


class RankingModel(keras.Model):
    """A model that scores the candidates of a request.

    In two steps, of which the whole pass is made: `encode_user` turns profile
    and history into a state that no candidate has entered, and `score` reads
    it for any number of candidates, each of which sees the user and itself
    alone. The recipe's `state_spec` says what the state is.

    A subclass makes its layers in `__init__`, builds them in `build` and
    defines both steps. What a layer adds by `add_loss` is trained too.

    Args:
        schema: A resolved `DatasetSchema`, or its dict.
        recipe: What the model is, or `recipe.to_dict()`.

    Call arguments:
        inputs: The dict of tensors of a request: int32 `user_<field>` `[B]`,
            `behavior_<field>` `[B, L]` and `candidate_<field>` `[B, C]`, int64
            `behavior_time` `[B, L]` in Unix seconds, left-padded with 0, and
            `request_time` `[B]`; of sets of ids with one more axis, padded
            with 0; float32 numbers of those three shapes. Other entries are
            not read.
        training: Whether dropout is applied, and what the schema's training
            fields add.
        trace: Whether `Scores.trace` is filled.

    Returns:
        `Scores`.
    """

    def __init__(
        self,
        schema: DatasetSchema | Mapping[str, Any],
        recipe: ModelRecipe | Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        # Dense features are transformed before they are cast.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(schema, DatasetSchema):
            schema = DatasetSchema.from_dict(schema)
        if not isinstance(recipe, ModelRecipe):
            recipe = recipe_from_dict(recipe)
        self.schema = schema
        self.recipe = recipe
        self.training_fields: TrainingFields | None = None
        if schema.training_fields:
            self.training_fields = TrainingFields(
                schema, recipe.hidden_training_fields, name="training_fields"
            )
            self.training_fields.build()

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        raise NotImplementedError

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        """Turns profile and history into what scoring needs of a user.

        Args:
            inputs: The user and behaviour tensors of `call`, and `request_time`
                if the state is bound to it.
            training: Whether dropout is applied.
            trace: Whether the state also holds, under names that begin with
                `trace/`, what is worth looking at.

        Returns:
            The tensors of the recipe's `state_spec`, batch axis first.
        """
        raise NotImplementedError

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        """Scores candidates for users that are already encoded.

        Args:
            state: What `encode_user` returns.
            inputs: `request_time` and the candidate tensors of `call`.
            training: Whether dropout is applied.
            trace: Whether `Scores.trace` is filled.
        """
        raise NotImplementedError

    def call(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> Scores:
        state = self.encode_user(inputs, training=training, trace=trace)
        scores = self.score(state, inputs, training=training, trace=trace)
        if training and self.training_fields is not None:
            logits = self.training_fields(scores.logits, inputs)
            scores = scores._replace(logits=logits)
        return scores

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": dataclasses.asdict(self.schema),
            "recipe": self.recipe.to_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


def with_one_column(inputs: Inputs) -> Inputs:
    """Adds a column of padding to histories that may have none.

    A gather needs a row to point at when the whole batch has no history.
    Where the length is static and positive, nothing is added.
    """
    length = inputs["behavior_time"].shape[1]
    if length is not None and length > 0:
        return inputs
    return {
        name: ops.pad(
            value, [(0, 0), (1, 0), *[(0, 0)] * (len(value.shape) - 2)]
        )
        if name.startswith("behavior_")
        else value
        for name, value in inputs.items()
    }
