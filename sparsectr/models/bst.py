"""BST: Behavior Sequence Transformer (Chen et al., DLP-KDD 2019).

Axes: B batch, L history length, C candidates, d width, S = L + 1 tokens.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.transformer_block import TransformerBlock
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.causal_blocks import QueryBlock, causal_blocks
from sparsectr.ops.places import places_of_history
from sparsectr.ops.tensor import Tensor

if TYPE_CHECKING:
    from configs.models.bst import BSTRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class BST(RankingModel):
    """A transformer over the behaviours and, last, the candidate.

        x_i = [fields_i ; gap_i] W + b,   gap_i = Table[log2(t_request - t_i)]
        y = Transformer(x_1, ..., x_L, x_candidate)
        logit = MLP([pool(y), e of the candidate, e_U])

    Arguments, call arguments and returns are those of `RankingModel`.

    In mode `listwise` behaviours read those before them and no candidate;
    the state holds keys and values of every block, `[blocks, L, d]` each. In
    mode `faithful` every row reads every other, as published, once for each
    candidate; the state holds the embedded behaviours, `[L, d]`. With one
    block of which the candidate's row is read, as by default, both compute
    the same, since the rows of behaviours are not read then. In neither may
    the state be reused for a later request: the time from a behaviour to the
    request is in its row.

    Cost:
        `listwise`: O(L^2 d) in all blocks, but O(C L d) in the last if
        behaviours' rows of it are not read. `faithful`: C times as much, of
        whole squares.

    Differs from the paper:
        The mode. Candidate's row or mean for all rows side by side, of which
        a long history makes too wide a head. The concatenated gap is mapped
        to width d with the fields: a projection of parts side by side is the
        sum of one for each, of which that of the gap is in its table. A gap
        is its logarithm, where the paper says no bucket. Slope 0.2 of
        LeakyReLU.
    """

    recipe: "BSTRecipe"

    def __init__(self, schema: Any, recipe: "BSTRecipe", **kwargs: Any) -> None:
        super().__init__(schema, recipe, **kwargs)
        recipe, policy = self.recipe, self.dtype_policy
        self.embedding = RequestEmbedding(
            self.schema,
            recipe.embedding_dim,
            recipe.width,
            name="embedding",
            dtype=policy,
        )
        self.gap = GapEmbedding(recipe.width, "gap", name="gap", dtype=policy)
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.blocks = [
            TransformerBlock(
                recipe.num_heads,
                recipe.feed_forward_multiplier,
                recipe.block_dropout_rate,
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

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        width = self.recipe.width
        profile = user_width(self.recipe, self.schema)
        self.embedding.build()
        self.gap.build()
        for block in self.blocks:
            block.build((None, None, width))
        self.head.build(
            (None, None, 2 * width), (None, profile) if profile else None
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        time = ops.convert_to_tensor(inputs["behavior_time"])
        rows = self.embedding.behaviors(inputs)  # [B, L, d]
        rows = rows + self.gap(time, inputs["request_time"])
        rows = self.dropout(rows, training=training)
        if self.recipe.mode == "faithful":
            state = {"rows": rows}
        else:
            state = self._encode(rows, time, training)
        state["is_valid"] = time > 0
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def _encode(self, rows: Tensor, time: Tensor, training: bool) -> UserState:
        """Passes the behaviours through all blocks, without a candidate."""
        last, pools_mean = len(self.blocks) - 1, self.recipe.pool == "mean"
        queries: tuple[QueryBlock, ...] = ()
        if last or pools_mean:
            queries = causal_blocks(places_of_history(time), lambda *_: ())
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            rows, key, value = block.encode(
                rows,
                queries,
                is_last=index == last and not pools_mean,
                training=training,
            )
            keys.append(key)
            values.append(value)
        state = {
            "keys": ops.stack(keys, axis=1),  # [B, blocks, L, d]
            "values": ops.stack(values, axis=1),
        }
        if pools_mean:
            state["sum"] = _sum_of_valid(rows, time > 0)
        return state

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        del trace
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        request_time = ops.convert_to_tensor(inputs["request_time"])
        gap = self.gap(ops.expand_dims(request_time, 1), request_time)
        rows = self.dropout(candidates + gap, training=training)
        if self.recipe.mode == "faithful":
            pooled = self._whole_sequences(state, rows, training)
        else:
            pooled = self._behind_history(state, rows, training)
        logits = self.head(
            ops.concatenate([pooled, candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {})

    def _behind_history(
        self, state: UserState, rows: Tensor, training: bool
    ) -> Tensor:
        """Returns the pooled rows of mode `listwise`, `[B, C, d]`."""
        for index, block in enumerate(self.blocks):
            rows = block(
                rows,
                state["keys"][:, index],
                state["values"][:, index],
                state["is_valid"],
                training=training,
            )
        if self.recipe.pool == "target":
            return rows
        total = rows + ops.expand_dims(state["sum"], 1)
        return total / _count(state["is_valid"], total.dtype)

    def _whole_sequences(
        self, state: UserState, rows: Tensor, training: bool
    ) -> Tensor:
        """Returns the pooled rows of mode `faithful`, `[B, C, d]`."""
        history, is_valid = state["rows"], state["is_valid"]
        batch, count, width = ops.shape(rows)
        length = ops.shape(history)[1]
        tiled = (batch, count, length, width)
        history = ops.broadcast_to(ops.expand_dims(history, 1), tiled)
        x = ops.concatenate([history, ops.expand_dims(rows, 2)], axis=2)
        x = ops.reshape(x, (-1, length + 1, width))  # [B * C, S, d]
        valid = ops.repeat(is_valid, count, axis=0)
        valid = ops.pad(valid, [(0, 0), (0, 1)], constant_values=True)
        mask = ops.expand_dims(valid, 1)  # [B * C, 1, S]
        if not self.recipe.bidirectional:
            index = ops.arange(length + 1)
            mask = ops.logical_and(
                mask, ops.expand_dims(index, 0) <= ops.expand_dims(index, 1)
            )
        for place, block in enumerate(self.blocks):
            reads_rows = (
                self.recipe.reads_last_rows or place < len(self.blocks) - 1
            )
            first = 0 if reads_rows else -1
            x = block.read(x[:, first:], x, mask[:, first:], training)
        shape = (batch, count, width)
        if self.recipe.pool == "target":
            return ops.reshape(x[:, -1], shape)
        total = ops.reshape(_sum_of_valid(x, valid), shape)
        return total / _count(is_valid, total.dtype)


def _sum_of_valid(rows: Tensor, is_valid: Tensor) -> Tensor:
    """Returns the sum of rows `[B, L, d]` where `[B, L]` is True, `[B, d]`."""
    kept = ops.where(ops.expand_dims(is_valid, 2), rows, 0.0)
    total = ops.sum(ops.cast(kept, "float32"), axis=1)
    return ops.cast(total, rows.dtype)


def _count(is_valid: Tensor, dtype: str) -> Tensor:
    """Returns how many rows a sequence has, its candidate's one of them."""
    count = 1.0 + ops.sum(ops.cast(is_valid, "float32"), axis=1)
    return ops.cast(ops.reshape(count, (-1, 1, 1)), dtype)
