"""LONGER: long sequences by merged tokens (Chai et al., RecSys 2025).

Axes: B batch, L history length, C candidates, K behaviours a token,
T = L / K tokens (rounded up), N the newest of them, G global tokens, H heads,
d width of a behaviour, D of a token.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.pre_norm_block import PreNormBlock
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within

if TYPE_CHECKING:
    from configs.models.longer import LONGERRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class LONGER(RankingModel):
    """A transformer in which the newest tokens read all of the history.

        x_i = MLP([b_i, gap to the request] + position_i)
        t_j = [x_i of K neighbours] W
        O = [CLS, user, the newest N of t],   R = [CLS, user, all t]
        O = Block_1(O, R),   O = Block_n(O, O),   n = 2, ..., M
        logit = MLP([candidate's row, CLS's row, user's row, e_U])

    A token reads CLS, the user and the tokens up to itself; CLS and the user
    read all of these; each candidate is one more row that reads all of these
    and itself, and that nothing reads. Groups of K begin at the newest
    behaviour, whatever the padding; a token counts if any of its behaviours
    does.

    Arguments, call arguments and returns are those of `RankingModel`.

    The state is keys and values of every layer: L / K of the first, and at
    most N of each other one. It holds for one request time alone, since the
    gap to the request is in every token.

    Cost:
        O(L d^2 + L d D) for tokens, O(N L D / K) for the first layer,
        O(N^2 D) for each later one. Of the last one no token's row is
        computed, since only candidates, CLS and user are read.

    Differs from the paper:
        A merged token is brought back to width d, so that a layer has as many
        weights as without merging (`merged_width` K d is published). Normed
        before each half, by RMSNorm; ReLU in the feed-forward networks, 4
        widths wide. One CLS; crossed features are no tokens. The candidate
        has neither gap nor position.
    """

    recipe: "LONGERRecipe"

    def __init__(
        self, schema: Any, recipe: "LONGERRecipe", **kwargs: Any
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
        self.gap = GapEmbedding(recipe.embedding_dim, name="gap", dtype=policy)
        self.positions = EmbeddingTable(
            recipe.max_positions + 1,
            recipe.width + recipe.embedding_dim,
            name="table_behavior_position",
            dtype=policy,
        )
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.token_hidden = self._dense(recipe.width, "token_hidden", "relu")
        self.token_output = self._dense(recipe.width, "token_output")
        if recipe.inner_transformer:
            self.inner_block = self._block("inner_block")
        width = recipe.token_width
        self.token_projection = self._dense(width, "token_projection")
        self.user_token = self._dense(width, "user_token")
        self.candidate_token = self._dense(width, "candidate_token")
        self.blocks = [
            self._block(f"block_{n}") for n in range(recipe.num_layers)
        ]
        self.output_norm = keras.layers.RMSNormalization(
            name="output_norm", dtype=policy
        )
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    def _dense(
        self, units: int, name: str, activation: str | None = None
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            units, activation=activation, name=name, dtype=self.dtype_policy
        )

    def _block(self, name: str) -> PreNormBlock:
        return PreNormBlock(
            self.recipe.num_heads,
            self.recipe.feed_forward_multiplier,
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        width = recipe.token_width
        self.embedding.build()
        self.gap.build()
        self.positions.build()
        self.token_hidden.build(
            (None, None, recipe.width + recipe.embedding_dim)
        )
        self.token_output.build((None, None, recipe.width))
        if recipe.inner_transformer:
            self.inner_block.build((None, None, recipe.width))
        if recipe.projects_tokens:
            self.token_projection.build(
                (None, None, recipe.merge * recipe.width)
            )
        self.cls = self.add_weight(
            name="cls", shape=(1, width), initializer="random_normal"
        )
        if profile:
            self.user_token.build((None, profile))
        self.candidate_token.build((None, None, recipe.width))
        for layer in (*self.blocks, self.output_norm):
            layer.build((None, None, width))
        shared = recipe.num_globals(self.schema) * width + profile
        self.head.build((None, None, width), (None, shared))
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        state: UserState = {}
        tokens, is_valid = self._tokens(inputs, training)  # [B, T, D]
        user = self.embedding.user(inputs)
        rows = self._globals(tokens, user)  # [B, G, D]
        count, newest = rows.shape[1], slice(-self.recipe.num_queries, None)
        mask = _visible(is_valid, count, newest)
        keys, values = [], []
        for place, block in enumerate(self.blocks):
            key, value = block.encode(ops.concatenate([rows, tokens], axis=1))
            keys.append(key[:, :count])
            values.append(value[:, :count])
            state[f"keys_{place}"] = key[:, count:]
            state[f"values_{place}"] = value[:, count:]
            queries, own_mask = rows, mask[:, :count]
            if place < len(self.blocks) - 1:
                queries = ops.concatenate([rows, tokens[:, newest]], axis=1)
                own_mask = mask
            queries = block(queries, key, value, own_mask)
            rows, tokens = queries[:, :count], queries[:, count:]
            # Of the tokens, only those go on that have asked.
            mask = ops.concatenate(
                [mask[..., :count], mask[..., count:][..., newest]], axis=-1
            )
        width = rows.shape[-1]
        state |= {
            "global_keys": ops.stack(keys, axis=1),  # [B, M, G, D]
            "global_values": ops.stack(values, axis=1),
            "global_rows": ops.reshape(
                self.output_norm(rows), (-1, count * width)
            ),
            "is_valid": is_valid,
        }
        return state if user is None else {**state, "user": user}

    def _tokens(self, inputs: Inputs, training: bool) -> tuple[Tensor, Tensor]:
        """Returns merged behaviours `[B, T, D]`, and bool `[B, T]`."""
        recipe, merge = self.recipe, self.recipe.merge
        time = ops.convert_to_tensor(inputs["behavior_time"])
        behaviors = self.embedding.behaviors(inputs)  # [B, L, d]
        behaviors = self.dropout(behaviors, training=training)
        gaps = self.gap(time, inputs["request_time"])
        batch, length = ops.shape(time)[0], ops.shape(time)[1]
        # From the newest: padding on the left moves none.
        place = ops.minimum(
            length - ops.arange(length, dtype="int32"), recipe.max_positions
        )
        x = ops.concatenate([behaviors, gaps], axis=-1)
        x = self.token_output(self.token_hidden(x + self.positions(place)))
        is_behavior = time > 0
        x = ops.where(ops.expand_dims(is_behavior, -1), x, 0.0)
        # Padded to whole groups, the last of which ends at the newest.
        first = (length + merge - 1) % merge
        x = ops.pad(x, [(0, 0), (merge - 1, 0), (0, 0)])[:, first:]
        is_behavior = ops.pad(is_behavior, [(0, 0), (merge - 1, 0)])[:, first:]
        count = (length + merge - 1) // merge
        is_behavior = ops.reshape(is_behavior, (batch, count, merge))
        if recipe.inner_transformer:
            x = ops.reshape(x, (batch * count, merge, recipe.width))
            mask = ops.reshape(is_behavior, (batch * count, 1, merge))
            x = self.inner_block(x, *self.inner_block.encode(x), mask)
            x = ops.where(ops.transpose(mask, (0, 2, 1)), x, 0.0)
        x = ops.reshape(x, (batch, count, merge * recipe.width))
        if recipe.projects_tokens:
            x = self.token_projection(x)
        return x, ops.any(is_behavior, axis=-1)

    def _globals(self, tokens: Tensor, user: Tensor | None) -> Tensor:
        """Returns CLS and behind it the user, `[B, G, D]`."""
        cls = ops.cast(self.cls, tokens.dtype)
        shape = (ops.shape(tokens)[0], 1, cls.shape[-1])
        rows = ops.broadcast_to(ops.expand_dims(cls, 0), shape)
        if user is None:
            return rows
        token = ops.expand_dims(self.user_token(user), 1)
        return ops.concatenate([rows, token], axis=1)

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        found = Trace() if trace else None
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        rows = self.candidate_token(candidates)  # [B, C, D]
        count = self.recipe.num_globals(self.schema)
        for place, block in enumerate(self.blocks):
            key, value = (
                ops.concatenate(
                    [
                        state[f"global_{name}"][:, place],
                        state[f"{name}_{place}"],
                    ],
                    axis=1,
                )
                for name in ("keys", "values")
            )
            is_valid = state["is_valid"]
            if place > 0:
                is_valid = is_valid[:, -self.recipe.num_queries :]
            mask = ops.pad(is_valid, [(0, 0), (count, 0)], constant_values=True)
            rows = block(
                rows,
                key,
                value,
                ops.expand_dims(mask, 1),
                reads_itself=True,
                trace=within(found, block.name),
            )
        shared, user = state["global_rows"], state.get("user")
        if user is not None:
            shared = ops.concatenate([shared, user], axis=-1)
        logits = self.head(
            self.output_norm(rows),
            shared,
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {} if found is None else found.tensors)


def _visible(is_valid: Tensor, num_globals: int, newest: slice) -> Tensor:
    """Returns which rows may be read by which, in the first layer.

    Args:
        is_valid: bool `[B, T]`, of tokens.
        num_globals: G.
        newest: Those of them that ask.

    Returns:
        bool `[B, G + N, G + T]`.
    """
    place = ops.arange(ops.shape(is_valid)[1])
    causal = ops.expand_dims(place, 0) <= ops.expand_dims(place[newest], 1)
    reads = ops.pad(causal, [(num_globals, 0), (0, 0)], constant_values=True)
    mask = ops.logical_and(ops.expand_dims(is_valid, 1), reads)
    sides = [(0, 0), (0, 0), (num_globals, 0)]
    return ops.pad(mask, sides, constant_values=True)
