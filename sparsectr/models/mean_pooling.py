"""MeanPooling: the plainest model of a history, to compare with.

Axes: B batch, L history length, C candidates, d width.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.prediction_layer import PredictionLayer
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)

if TYPE_CHECKING:
    from configs.models.mean_pooling import MeanPoolingRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class MeanPooling(RankingModel):
    """A candidate beside the mean of the history.

        E_C' = relu([c, h, c * h] W),   h = mean of the valid behaviours

    Embeddings, reader and prediction layer are those of `SparseCTR`; order
    and time are not read, unless the schema has time fields. The state is h
    and the profile, good for any later request with the same history, unless
    `gap_to_request` is one of them.

    Arguments, call arguments and returns are those of `RankingModel`.
    """

    recipe: "MeanPoolingRecipe"

    def __init__(
        self, schema: Any, recipe: "MeanPoolingRecipe", **kwargs: Any
    ) -> None:
        super().__init__(schema, recipe, **kwargs)
        recipe, policy = self.recipe, self.dtype_policy
        self.embedding = RequestEmbedding(
            self.schema,
            recipe.embedding_dim,
            recipe.width,
            name="embedding",
            dtype=policy,
        )
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.fusion = keras.layers.Dense(
            recipe.width, activation="relu", name="fusion", dtype=policy
        )
        self.prediction = PredictionLayer(
            recipe.width,
            recipe.head_units,
            recipe.head_activation,
            name="prediction",
            dtype=policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        self.embedding.build()
        self.fusion.build((None, None, 3 * recipe.width))
        self.prediction.build(
            (None, None, recipe.width),
            (None, profile) if profile else None,
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        behaviors = self.dropout(
            self.embedding.behaviors(inputs), training=training
        )
        valid = ops.cast(inputs["behavior_time"] > 0, behaviors.dtype)
        # Summed as a product: a running sum in bfloat16 would stop growing.
        total = ops.einsum("bl,bld->bd", valid, behaviors)
        count = ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1.0)
        state = {"history": total / count}
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        del trace
        candidates = self.dropout(
            self.embedding.candidates(inputs), training=training
        )
        history = ops.expand_dims(state["history"], 1)
        history = history + ops.zeros_like(candidates)  # [B, C, d]
        fused = self.fusion(
            ops.concatenate(
                [candidates, history, candidates * history], axis=-1
            )
        )
        logits = self.prediction(
            fused,
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {})
