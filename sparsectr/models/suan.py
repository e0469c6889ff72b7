"""SUAN: Stacked Unified Attention Network (RecSys 2025).

Axes: B batch, L history length, C candidates, T tokens of the user, d width.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.unified_attention_block import (
    UnifiedAttentionBlock,
    UserSide,
)
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.causal_blocks import causal_blocks
from sparsectr.ops.places import places_of_history, places_of_request
from sparsectr.ops.tensor import Tensor

if TYPE_CHECKING:
    from configs.models.suan import SUANRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class SUAN(RankingModel):
    """Blocks that read history and user and weigh both, then an MLP.

        x_i = [fields_i] W + b + Table[position_i]
        x = UnifiedAttentionBlock(x), block after block
        logit = MLP([x of the candidate, e of the candidate, e_U])

    Arguments, call arguments and returns are those of `RankingModel`. A
    candidate stands last in the sequence, at the request's time, and reads
    all behaviours and itself. Positions count back from it. A token of the
    user is one of its embedded fields; its numbers have one together.

    The state holds keys and values of every block, `[blocks, L, d]` each,
    those of the user's tokens, `[blocks, T, d]`, the gates, `[blocks, d]`,
    and the times, `[L]`; it may be reused for any later request with the same
    history, unless `gap_to_request` is a field. How long ago a behaviour was
    enters in `score`.

    Cost:
        O(L^2 d) in all blocks. In the last one it is the gate that needs what
        behaviours read; without a user field there is none, and only
        candidates are computed, O(C L d).

    Differs from the paper:
        The gate, see `UnifiedAttentionBlock`: the published one averages
        over the candidate and padding as well, by which candidates of one
        request would read each other, behaviours the future and scores the
        length of the padding. An embedded time is one of the fields, if the
        schema has time fields, and not a part of its own. A candidate has a
        projection of its own, where the fields that it lacks are 0.
    """

    recipe: "SUANRecipe"

    def __init__(
        self, schema: Any, recipe: "SUANRecipe", **kwargs: Any
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
        self.positions = EmbeddingTable(
            recipe.num_positions,
            recipe.width,
            name="table_sequence_position",
            dtype=policy,
        )
        if self.schema.numbers("user"):
            self.number_token = keras.layers.Dense(
                recipe.embedding_dim, name="number_token", dtype=policy
            )
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.blocks = [
            UnifiedAttentionBlock(
                recipe.num_heads,
                recipe.num_positions,
                recipe.embedding_dim if self._num_tokens else None,
                dropout_rate=recipe.block_dropout_rate,
                name=f"block_{index}",
                dtype=policy,
            )
            for index in range(recipe.num_blocks)
        ]
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    @property
    def _num_tokens(self) -> int:
        return self.recipe.num_user_tokens(self.schema)

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        width = self.recipe.width
        profile = user_width(self.recipe, self.schema)
        self.embedding.build()
        self.positions.build()
        numbers = len(self.schema.numbers("user"))
        if numbers:
            self.number_token.build((None, numbers))
        for block in self.blocks:
            block.build((None, None, width))
        self.head.build(
            (None, None, 2 * width), (None, profile) if profile else None
        )
        self.built = True

    def _at(self, position: Tensor) -> Tensor:
        """Returns the embeddings of positions, with one more axis d."""
        return self.positions(
            ops.minimum(position, self.recipe.num_positions - 1)
        )

    def _user_tokens(self, user: Tensor) -> Tensor:
        """Returns the user's fields and numbers as tokens, `[B, T, e]`."""
        width = self.recipe.embedding_dim
        fields = len(self.schema.ids("user"))
        tokens = ops.reshape(user[:, : fields * width], (-1, fields, width))
        if not self.schema.numbers("user"):
            return tokens
        numbers = self.number_token(user[:, fields * width :])
        return ops.concatenate([tokens, ops.expand_dims(numbers, 1)], axis=1)

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        time = ops.convert_to_tensor(inputs["behavior_time"])
        history = places_of_history(time)
        rows = self.embedding.behaviors(inputs) + self._at(history.position)
        rows = self.dropout(rows, training=training)  # [B, L, d]
        user = self.embedding.user(inputs)
        tokens = None if user is None else self._user_tokens(user)
        last = len(self.blocks) - 1
        relate = self.blocks[0].encoding.relate
        needs_rows = last or user is not None
        queries = causal_blocks(history, relate) if needs_rows else ()
        keys, values, sides = [], [], []
        for index, block in enumerate(self.blocks):
            rows, key, value, side = block.encode(
                rows,
                history.valid,
                queries,
                tokens,
                is_last=index == last,
                training=training,
            )
            keys.append(key)
            values.append(value)
            sides.append(side)
        state = {
            "keys": ops.stack(keys, axis=1),  # [B, blocks, L, d]
            "values": ops.stack(values, axis=1),
            "time": time,
        }
        if user is None:
            return state
        for name, parts in zip(
            UserSide._fields, zip(*sides, strict=True), strict=True
        ):
            state[name] = ops.stack(parts, axis=1)  # [B, blocks, ...]
        return {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        del trace
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        history = places_of_history(state["time"])
        request = places_of_request(inputs["request_time"])
        relate = self.blocks[0].encoding.relate
        features = relate(request, history)  # [B, 1, L]
        own_features = relate(request, request)  # [B, 1, 1]
        rows = candidates + self._at(request.position)
        rows = self.dropout(rows, training=training)
        for index, block in enumerate(self.blocks):
            side = None
            if self._num_tokens:
                side = UserSide(*(state[n][:, index] for n in UserSide._fields))
            rows = block(
                rows,
                state["keys"][:, index],
                state["values"][:, index],
                features,
                own_features,
                history.valid,
                side,
                training=training,
            )
        logits = self.head(
            ops.concatenate([rows, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {})
