"""DIN: Deep Interest Network (Zhou et al., KDD 2018).

Axes: B batch, L history length, C candidates, U user fields, d width,
h hidden width.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.dice import Dice
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
        O(C L (d h + h h')) multiplications, O(C L h) memory: see
        `ActivationUnit`.

    Differs from the paper:
        Sigmoid in the activation unit, ReLU and one hidden layer in the head,
        where it has Dice and two (preset "published"). Weights are not
        normalized by default, as there; sums over a thousand behaviours may
        want `normalize`.
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
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.activation_unit = ActivationUnit(
            recipe.attention_units_1,
            recipe.attention_units_2,
            recipe.attention_activation,
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
        is_valid = ops.expand_dims(state["is_valid"], 1)  # [B, 1, L]
        pair_mask, candidate_mask = is_valid, inputs.get("candidate_mask")
        if candidate_mask is not None:
            pair_mask = ops.logical_and(
                ops.expand_dims(candidate_mask, 2), is_valid
            )  # [B, C, L]
        weights = self._normalized(
            self.activation_unit(
                candidates, behaviors, pair_mask, training=training
            ),
            is_valid,
        )  # [B, C, L]
        interest = ops.matmul(
            ops.cast(weights, behaviors.dtype), behaviors
        )  # [B, C, d]
        logits = self.head(
            ops.concatenate([interest, candidates], axis=-1),
            state.get("user"),
            candidate_mask=candidate_mask,
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

        a = f(f([q, k, q - k, q * k] W1 + b1) W2 + b2) w3 + b3

    With W1 cut into the four parts that it is applied to,

        [q, k, q - k, q * k] W1 = k (Wk - Wd + diag(q) Wp) + q (Wq + Wd)

    so that a candidate has a matrix of its own, which all behaviours pass.

    Args:
        hidden_units_1: Columns of W1.
        hidden_units_2: Columns of W2.
        activation: f: "sigmoid" or "dice".

    Call arguments:
        candidates: float `[B, C, d]`.
        behaviors: float `[B, L, d]`.
        pair_mask: bool, broadcasts to `[B, C, L]`; True for a pair that
            counts in the statistics of Dice. `None` for all.
        training: Whether Dice has the statistics of the batch.

    Returns:
        float `[B, C, L]`.

    Raises:
        ValueError: If the activation is unknown.

    Cost:
        O(C L (d h + h h')) multiplications, O(C L h + C d h) memory: no
        tensor `[B, C, L, 4 d]` is made, and of width h only the layer itself.
    """

    def __init__(
        self,
        hidden_units_1: int,
        hidden_units_2: int,
        activation: str = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if activation not in ("sigmoid", "dice"):
            raise ValueError(
                "`activation` must be sigmoid or dice. "
                f"Received: activation={activation!r}"
            )
        self.hidden_units_1 = hidden_units_1
        self.hidden_units_2 = hidden_units_2
        self.activation = activation

    def build(
        self,
        candidates_shape: Any,
        behaviors_shape: Any = None,
        pair_mask_shape: Any = None,
    ) -> None:
        width, policy = candidates_shape[-1], self.dtype_policy
        self.kernel = self.add_weight(
            name="kernel",
            shape=(4 * width, self.hidden_units_1),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.hidden_units_1,), initializer="zeros"
        )
        self.hidden = keras.layers.Dense(
            self.hidden_units_2, name="hidden", dtype=policy
        )
        self.output_unit = keras.layers.Dense(
            1, name="output_unit", dtype=policy
        )
        self.hidden.build((None, None, None, self.hidden_units_1))
        self.output_unit.build((None, None, None, self.hidden_units_2))
        self.functions: list[Dice] = []
        if self.activation == "dice":
            units = (self.hidden_units_1, self.hidden_units_2)
            for place, size in enumerate(units):
                dice = Dice(name=f"dice_{place}", dtype=policy)
                dice.build((None, None, None, size))
                self.functions.append(dice)
        self.built = True

    def call(
        self,
        candidates: Tensor,
        behaviors: Tensor,
        pair_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        kernel = ops.cast(self.kernel, self.compute_dtype)
        of_query, of_key, of_difference, of_product = ops.split(kernel, 4)
        own = ops.expand_dims(candidates, -1) * of_product  # [B, C, d, h]
        own = own + (of_key - of_difference)
        query = ops.matmul(candidates, of_query + of_difference)  # [B, C, h]
        query = query + ops.cast(self.bias, self.compute_dtype)
        x = ops.matmul(ops.expand_dims(behaviors, 1), own)  # [B, C, L, h]
        x = x + ops.expand_dims(query, 2)
        x = self._activated(0, x, pair_mask, training)
        x = self._activated(1, self.hidden(x), pair_mask, training)
        return ops.squeeze(self.output_unit(x), axis=-1)

    def _activated(
        self, place: int, x: Tensor, pair_mask: Tensor | None, training: bool
    ) -> Tensor:
        if self.activation == "sigmoid":
            return ops.sigmoid(x)
        return self.functions[place](x, pair_mask, training=training)

    def compute_output_shape(
        self,
        candidates_shape: Any,
        behaviors_shape: Any,
        pair_mask_shape: Any = None,
    ) -> Any:
        return (*candidates_shape[:-1], behaviors_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units_1": self.hidden_units_1,
            "hidden_units_2": self.hidden_units_2,
            "activation": self.activation,
        }
