"""DIN: Deep Interest Network (Zhou et al., KDD 2018).

Axes: B batch, L history length, C candidates, U user fields, d width,
h hidden width.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor

if TYPE_CHECKING:
    from configs.models.din import DINRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class DIN(RankingModel):
    """Behaviours weighted by what the candidate is like, then an MLP.

        a_i = MLP([q, k_i, q - k_i, q * k_i]),   v = sum_i a_i k_i
        logit = MLP([v, q, e_U])

    Arguments, call arguments and returns are those of `RankingModel`.

    The state is the embedded history, `[L, d]`, as long as the history; it
    may be reused for any later request with the same history, unless
    `gap_to_request` is read in `encode_user`. Read in `score`, the embedded
    gaps are added to the rows of the state, which is the same sum.

    Cost:
        O(C L (d h + h h')) multiplications, O(C L h) memory: the first layer
        is applied to candidate, behaviour and product apart, so that no
        tensor `[B, C, L, 4 d]` is made.

    Differs from the paper:
        Sigmoid in the activation unit and ReLU in the head, where it has
        Dice; one hidden layer in the head. Weights are not normalized by
        default, as there.
    """

    recipe: "DINRecipe"

    def __init__(self, schema: Any, recipe: "DINRecipe", **kwargs: Any) -> None:
        super().__init__(schema, recipe, **kwargs)
        recipe, policy = self.recipe, self.dtype_policy
        self.embedding = RequestEmbedding(
            self.schema,
            recipe.embedding_dim,
            recipe.width,
            recipe.gap_to_request,
            name="embedding",
            dtype=policy,
        )
        self.dropout = keras.layers.Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.activation_unit = ActivationUnit(
            recipe.attention_units_1,
            recipe.attention_units_2,
            name="activation_unit",
            dtype=policy,
        )
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        self.embedding.build()
        self.activation_unit.build((None, None, recipe.width))
        self.head.build(
            (None, None, 2 * recipe.width),
            (None, profile) if profile else None,
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        behaviors = self.embedding.behaviors(inputs)  # [B, L, d]
        time = ops.convert_to_tensor(inputs["behavior_time"])
        state = {
            "behaviors": self.dropout(behaviors, training=training),
            "is_valid": time > 0,
        }
        if self.recipe.scores_gap(self.schema):
            state["time"] = time
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        behaviors = state["behaviors"]
        if self.recipe.scores_gap(self.schema):
            gaps = self.embedding.gaps_to_request(
                state["time"], inputs["request_time"]
            )
            behaviors = behaviors + self.dropout(gaps, training=training)
        weights = self._normalized(
            self.activation_unit(candidates, behaviors),
            ops.expand_dims(state["is_valid"], 1),
        )  # [B, C, L]
        interest = ops.matmul(
            ops.cast(weights, behaviors.dtype), behaviors
        )  # [B, C, d]
        logits = self.head(
            ops.concatenate([interest, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {"weights": weights} if trace else {})

    def _normalized(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the weights of behaviours, float32; 0 for padding."""
        if self.recipe.normalize == "softmax":
            weights, total = masked_exponentials(logits, mask)
            return weights / total
        weights = ops.where(mask, ops.cast(logits, "float32"), 0.0)
        if self.recipe.normalize == "length":
            count = ops.sum(ops.cast(mask, "float32"), axis=-1, keepdims=True)
            weights = weights / ops.maximum(count, 1.0)
        return weights


@keras.saving.register_keras_serializable(package="sparsectr")
class ActivationUnit(keras.layers.Layer):
    """How much a behaviour says of a candidate (Zhou et al., Figure 2).

        a = sigmoid(sigmoid([q, k, q - k, q * k] W1 + b1) W2 + b2) w3 + b3

    With W1 cut into the four parts that it is applied to,

        [q, k, q - k, q * k] W1 = q (Wq + Wd) + k (Wk - Wd) + (q * k) Wp

    of which the first two are computed once a candidate and once a behaviour.

    Args:
        hidden_units_1: Columns of W1.
        hidden_units_2: Columns of W2.

    Call arguments:
        candidates: float `[B, C, d]`.
        behaviors: float `[B, L, d]`.

    Returns:
        float `[B, C, L]`.
    """

    def __init__(
        self, hidden_units_1: int, hidden_units_2: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units_1 = hidden_units_1
        self.hidden_units_2 = hidden_units_2

    def build(self, candidates_shape: Any, behaviors_shape: Any = None) -> None:
        width = candidates_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(4 * width, self.hidden_units_1),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.hidden_units_1,), initializer="zeros"
        )
        self.hidden = keras.layers.Dense(
            self.hidden_units_2,
            activation="sigmoid",
            name="hidden",
            dtype=self.dtype_policy,
        )
        self.output_unit = keras.layers.Dense(
            1, name="output_unit", dtype=self.dtype_policy
        )
        self.hidden.build((None, None, None, self.hidden_units_1))
        self.output_unit.build((None, None, None, self.hidden_units_2))
        self.built = True

    def call(self, candidates: Tensor, behaviors: Tensor) -> Tensor:
        kernel = ops.cast(self.kernel, self.compute_dtype)
        of_query, of_key, of_difference, of_product = ops.split(kernel, 4)
        query = ops.matmul(candidates, of_query + of_difference)  # [B, C, h]
        key = ops.matmul(behaviors, of_key - of_difference)  # [B, L, h]
        own = ops.expand_dims(candidates, -1) * of_product  # [B, C, d, h]
        product = ops.matmul(ops.expand_dims(behaviors, 1), own)
        total = product + ops.expand_dims(query, 2) + ops.expand_dims(key, 1)
        hidden = ops.sigmoid(total + self.bias)  # [B, C, L, h]
        logits = self.output_unit(self.hidden(hidden))
        return ops.squeeze(logits, axis=-1)

    def compute_output_shape(
        self, candidates_shape: Any, behaviors_shape: Any
    ) -> Any:
        return (*candidates_shape[:-1], behaviors_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units_1": self.hidden_units_1,
            "hidden_units_2": self.hidden_units_2,
        }
