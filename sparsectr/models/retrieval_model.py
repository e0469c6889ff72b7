"""What two-stage retrieval models have in common.

Axes: B batch, L history length, C candidates, d width.
"""

from typing import TYPE_CHECKING, Any

from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.retrieval.target_attention import TargetAttention
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Auxiliary,
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within

if TYPE_CHECKING:
    from sparsectr.recipes.retrieval_recipe import RetrievalRecipe


class RetrievalModel(RankingModel):
    """A short interest in the newest behaviors and a long one in found ones.

        logit = MLP([short, long, q, e_U])

    Both are read by target attention of the candidate, with weights of their
    own: the short one the newest `num_recent` behaviors, the long one what
    the candidate's search finds in the whole history. A subclass makes the
    layers of the long one in `make_search`, builds them in `build_search` and
    defines `long_interest`.
    """

    recipe: "RetrievalRecipe"

    def __init__(
        self, schema: Any, recipe: "RetrievalRecipe", **kwargs: Any
    ) -> None:
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
        self.short_attention = TargetAttention(
            recipe.num_heads, name="short_attention", dtype=policy
        )
        self.make_search()
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    def make_search(self) -> None:
        """Makes the layers of the long interest."""
        raise NotImplementedError

    def build_search(self, profile: int) -> None:
        """Builds them.

        Args:
            profile: Width of the user's profile, 0 without one.
        """
        raise NotImplementedError

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Searches for each candidate, and reads what is found.

        Args:
            state: What `encode_user` returns.
            inputs: `request_time` and the candidate tensors.
            candidates: Embedded, float `[B, C, d]`.
            behaviors: Embedded, float `[B, L, d]`.
            training: Whether auxiliary predictions are needed.
            trace: Gets what was found.

        Returns:
            float `[B, C, d]`, and auxiliary predictions.
        """
        raise NotImplementedError

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        rows = (None, None, recipe.width)
        self.embedding.build()
        self.short_attention.build(rows, rows)
        self.build_search(profile)
        self.head.build(
            (None, None, 3 * recipe.width), (None, profile) if profile else None
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        features = self.embedding.behavior_features(inputs)
        behaviors = self.embedding.behavior_projection(features)  # [B, L, d]
        behaviors = self.dropout(behaviors, training=training)
        state = {
            "behaviors": behaviors,
            "time": ops.convert_to_tensor(inputs["behavior_time"]),
            **self.encode_search(inputs, features, behaviors, training),
        }
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def encode_search(
        self,
        inputs: Inputs,
        features: Tensor,
        behaviors: Tensor,
        training: bool,
    ) -> UserState:
        """Returns what the recipe's `search_state` says.

        Args:
            inputs: The behaviors' tensors.
            features: Their fields, embedded and not yet projected; see
                `RequestEmbedding.behavior_features`.
            behaviors: As they are in the state.
            training: Whether dropout is applied.
        """
        del inputs, features, behaviors, training
        return {}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        state = self._with_one_behavior(state)
        behaviors, time = state["behaviors"], state["time"]
        if self.recipe.scores_gap(self.schema):
            gaps = self.embedding.gaps_to_request(time, inputs["request_time"])
            behaviors = behaviors + self.dropout(gaps, training=training)
        found = Trace() if trace else None
        num_recent = self.recipe.num_recent
        short = self.short_attention(
            candidates,
            behaviors[:, -num_recent:],
            time[:, -num_recent:] > 0,
            trace=within(found, "short"),
        )
        long, auxiliary = self.long_interest(
            state,
            inputs,
            candidates,
            behaviors,
            training,
            within(found, "long"),
        )
        logits = self.head(
            ops.concatenate([short, long, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, auxiliary, found.tensors if found else {})

    def _with_one_behavior(self, state: UserState) -> UserState:
        """Adds a row of padding to histories that may have none.

        Where the length is static and positive, nothing is added.
        """
        if state["time"].shape[1]:
            return state
        spec = self.recipe.state_spec(self.schema)
        padded = {
            tensor.name: ops.pad(
                state[tensor.name],
                [(0, 0), (1, 0), *[(0, 0)] * (len(tensor.shape) - 1)],
            )
            for tensor in spec.tensors
            if tensor.shape[:1] == ("L",)
        }
        return {**state, **padded}


def record_found(trace: Trace | None, index: Tensor, found: Tensor) -> None:
    """Keeps as `retrieved` which columns were found, -1 for none."""
    if trace is not None:
        trace.record("retrieved", ops.where(found, index, -1))
