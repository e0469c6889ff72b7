"""CAN: Co-Action Network (Bian et al., WSDM 2022).

Axes: B batch, L history length, C candidates, d width, f feed width,
h and g widths of the co-action's layers, O orders.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.tensor import Tensor

if TYPE_CHECKING:
    from configs.models.can import CANRecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class CAN(RankingModel):
    """A candidate's id is a small network that ids of behaviours pass.

        h_o = tanh(x_i^o W1),   g_o = h_o W2,   o = 1, ..., O
        a = sum_i [h_1, g_1, ..., h_O, g_O]
        logit = MLP([c, a of each pair of fields, sum_i b_i, e_U])

    W1 and W2 are the row of the candidate's id in an induction table, x_i
    that of the behaviour's id in a feed table: both are tables beside those
    of embeddings. A pair is a field of candidates and one of behaviours that
    share a table in the schema; sets have none.

    Arguments, call arguments and returns are those of `RankingModel`.

    The state is the pooled history and, for each field of behaviours that has
    a pair, `[L, f]` of the feed table: as long as the history. It may be
    reused for any later request with the same history, unless
    `gap_to_request` is read in `encode_user`.

    Raises:
        ValueError: If candidates and behaviours share no table.

    Numerics:
        Sums over behaviours are float32. A sum over a thousand of them is as
        published, and finite, since every summand of h is below 1.

    Cost:
        O(O C L f h) multiplications and O(O C L h) memory a pair. Behaviours
        are summed before W2, which is linear, so that no `[B, C, L, g]` is
        made; and no matrix is copied for each behaviour. The tables have
        f h + h g + f numbers an id, 176 by default, beside the embedding.

    Differs from the paper:
        On top of pooled history, candidate and profile, as in the authors'
        code, not of DIEN; one hidden layer with ReLU (preset "published" has
        their widths, with Dice). One output and no softmax of two. All orders
        have one W1 and W2.
    """

    recipe: "CANRecipe"

    def __init__(self, schema: Any, recipe: "CANRecipe", **kwargs: Any) -> None:
        super().__init__(schema, recipe, **kwargs)
        recipe, policy = self.recipe, self.dtype_policy
        self.pairs = recipe.pairs(self.schema)
        self.embedding = RequestEmbedding(
            self.schema,
            recipe.embedding_dim,
            recipe.width,
            name="embedding",
            dtype=policy,
        )
        self.own_tables = {
            spec.name: EmbeddingTable(
                spec.num_rows,
                spec.width,
                name=f"table_{spec.name}",
                dtype=policy,
            )
            for spec in recipe.tables(self.schema)
            if spec.name not in self.embedding.tables
        }
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
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
        self.embedding.build()
        for table in self.own_tables.values():
            table.build()
        own = recipe.width + len(self.pairs) * recipe.pair_width
        shared = recipe.width + user_width(recipe, self.schema)
        self.head.build((None, None, own), (None, shared))
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        behaviors = self.dropout(
            self.embedding.behaviors(inputs), training=training
        )
        is_valid = ops.convert_to_tensor(inputs["behavior_time"]) > 0
        valid = ops.cast(is_valid, behaviors.dtype)
        # Summed as a product: a running sum in bfloat16 would stop growing.
        history = ops.einsum("bl,bld->bd", valid, behaviors)
        state = {"history": history}
        for pair in self.pairs:
            name = f"feed_{pair.behavior}"
            if name not in state:
                table = self.own_tables[f"feed_{pair.table}"]
                rows = table(inputs[f"behavior_{pair.behavior}"])  # [B, L, f]
                # Of a row of zeros every layer is 0: padding needs no mask.
                state[name] = rows * ops.expand_dims(valid, -1)
        if self.recipe.pool == "mean":
            count = ops.sum(ops.cast(is_valid, "int32"), axis=1)
            share = _share(count, history.dtype)
            state["history"] = history * ops.expand_dims(share, -1)
            state["num_behaviors"] = count
        user = self.embedding.user(inputs)
        return state if user is None else {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        recipe = self.recipe
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        rows = [self.dropout(candidates, training=training)]
        for pair in self.pairs:
            table = self.own_tables[f"induction_{pair.table}"]
            sums = co_action(
                table(inputs[f"candidate_{pair.candidate}"]),
                state[f"feed_{pair.behavior}"],
                recipe.co_action_units_1,
                recipe.co_action_units_2,
                recipe.num_orders,
            )
            if recipe.pool == "mean":
                share = _share(state["num_behaviors"], sums.dtype)
                sums = sums * ops.reshape(share, (-1, 1, 1))
            rows.append(ops.cast(sums, candidates.dtype))
        shared, user = state["history"], state.get("user")
        if user is not None:
            shared = ops.concatenate([shared, user], axis=-1)
        logits = self.head(
            ops.concatenate(rows, axis=-1),
            shared,
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        found = {
            f"co_action/{pair.candidate}/{pair.behavior}": sums
            for pair, sums in zip(self.pairs, rows[1:], strict=True)
        }
        return Scores(logits, {}, found if trace else {})


def _share(count: Tensor, dtype: str) -> Tensor:
    """Returns what one of so many behaviours counts for in their mean."""
    return ops.cast(1.0 / ops.cast(ops.maximum(count, 1), "float32"), dtype)


def co_action(
    induction: Tensor,
    feed: Tensor,
    units_1: int,
    units_2: int,
    num_orders: int,
) -> Tensor:
    """Passes ids of behaviours through the networks of candidates' ids.

    Args:
        induction: float `[B, C, f h + h g]`, W1 and behind it W2, row by row.
        feed: float `[B, L, f]`; rows of zeros add nothing.
        units_1: h.
        units_2: g.
        num_orders: O.

    Returns:
        float32 `[B, C, O (h + g)]`: h and g of the first order, of the second
        and so on, summed over behaviours.
    """
    num_feed = feed.shape[-1]
    batch, length = ops.shape(feed)[0], ops.shape(feed)[1]
    count, cut = ops.shape(induction)[1], num_feed * units_1
    first = ops.reshape(induction[..., :cut], (batch, count, num_feed, units_1))
    first = ops.transpose(first, (0, 2, 1, 3))  # [B, f, C, h]
    first = ops.reshape(first, (batch, num_feed, count * units_1))
    second = ops.reshape(induction[..., cut:], (batch, count, units_1, units_2))
    powers = [feed]
    for _ in range(num_orders - 1):
        powers.append(powers[-1] * feed)
    hidden = ops.tanh(
        ops.matmul(ops.concatenate(powers, axis=1), first)
    )  # [B, O * L, C * h]
    hidden = ops.reshape(hidden, (batch, num_orders, length, count * units_1))
    sums = ops.sum(ops.cast(hidden, "float32"), axis=2)
    sums = ops.reshape(sums, (batch, num_orders, count, units_1))
    sums = ops.transpose(sums, (0, 2, 1, 3))  # [B, C, O, h]
    outputs = ops.matmul(sums, ops.cast(second, "float32"))  # [B, C, O, g]
    both = ops.concatenate([sums, outputs], axis=-1)
    return ops.reshape(both, (batch, count, num_orders * (units_1 + units_2)))
