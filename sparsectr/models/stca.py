"""STCA: stacked target-to-history cross-attention (2026).

Axes: B batch, L history length, C candidates, H heads, d width, d_h = d / H.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.dropout import Dropout
from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.swiglu import SwiGLU
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
)
from sparsectr.ops.head_attention import attend
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace, within

if TYPE_CHECKING:
    from configs.models.stca import STCARecipe


@keras.saving.register_keras_serializable(package="sparsectr")
class STCA(RankingModel):
    """The candidate asks the history several times, behaviours ask nothing.

        X_i = LN(F_i(X))                                  for each layer i
        q_1 = LN(F(c)),   o_i = Attention_i(q_i, X_i)
        q_(i+1) = LN(F([o_1, ..., o_i, c] W_i))
        logit = MLP([F([o_1, ..., o_M, c] W_Z), c, e_U])

    X is the embedded history, c the embedded candidate, F a SwiGLU of its own
    wherever it stands. From "Make It Long, Keep It Fast" (ByteDance, WWW 2026
    industry track).

    Arguments, call arguments and returns are those of `RankingModel`.

    The state is X_i of every layer, `[L, d]` each: M times as large as that
    of DIN, and the largest of all models here. It may be reused for any later
    request with the same history, unless `reads_gap` or a time field
    `gap_to_request` puts the time to the request into the behaviours.

    Cost:
        O(M L d^2) for the history and O(M C L d), or O(M C L H d) without
        keys and values, for the candidates: linear in L.

    Differs from the paper:
        The hidden width of F, of which we know nothing, is 3 d, as in
        SparseCTR. The gap is an option, of the width of an embedding; the
        paper has it in every token. The head also sees candidate and profile.
    """

    recipe: "STCARecipe"

    def __init__(
        self, schema: Any, recipe: "STCARecipe", **kwargs: Any
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
        if recipe.reads_gap:
            self.gap = GapEmbedding(
                recipe.embedding_dim, name="gap", dtype=policy
            )
            self.gap_projection = self._dense("gap_projection")
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        layers = range(recipe.num_layers)
        self.history_networks = [self._network(f"history_{n}") for n in layers]
        self.history_norms = [self._norm(f"history_norm_{n}") for n in layers]
        self.query_networks = [self._network(f"query_{n}") for n in layers]
        self.query_norms = [self._norm(f"query_norm_{n}") for n in layers]
        self.attentions = [
            TargetToHistory(
                recipe.num_heads, name=f"attention_{n}", dtype=policy
            )
            for n in layers
        ]
        # What has been read so far, for the next query and for the output.
        self.mixers = [self._dense(f"mixer_{n}") for n in layers]
        self.output_network = self._network("output_network")
        self.head = MLPHead(
            recipe.head_units,
            recipe.head_activation,
            name="head",
            dtype=policy,
        )

    def _dense(self, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            self.recipe.width,
            use_bias=False,
            name=name,
            dtype=self.dtype_policy,
        )

    def _norm(self, name: str) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(
            name=name, dtype=self.dtype_policy
        )

    def _network(self, name: str) -> SwiGLU:
        return SwiGLU(
            self.recipe.feed_forward_multiplier * self.recipe.width,
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        rows = (None, None, recipe.width)
        self.embedding.build()
        if recipe.reads_gap:
            self.gap.build()
            self.gap_projection.build((None, None, recipe.embedding_dim))
        for layer in (
            *self.history_networks,
            *self.history_norms,
            *self.query_networks,
            *self.query_norms,
            *self.attentions,
            self.output_network,
        ):
            layer.build(rows)
        for place, mixer in enumerate(self.mixers):
            mixer.build((None, None, (place + 2) * recipe.width))
        self.head.build(
            (None, None, 2 * recipe.width),
            (None, profile) if profile else None,
        )
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        del trace
        time = ops.convert_to_tensor(inputs["behavior_time"])
        behaviors = self.embedding.behaviors(inputs)  # [B, L, d]
        if self.recipe.reads_gap:
            # As if it stood beside the fields that have been projected.
            gaps = self.gap(time, inputs["request_time"])
            behaviors = behaviors + self.gap_projection(gaps)
        behaviors = self.dropout(behaviors, training=training)
        state = {
            f"rows_{place}": norm(network(behaviors))
            for place, (network, norm) in enumerate(
                zip(self.history_networks, self.history_norms, strict=True)
            )
        }
        state["is_valid"] = time > 0
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
        forms_keys = self.recipe.forms_keys(candidates.shape[1])
        found = Trace() if trace else None
        mixed, outputs = candidates, []
        for place, attention in enumerate(self.attentions):
            query = self.query_networks[place](mixed)
            outputs.append(
                attention(
                    self.query_norms[place](query),
                    state[f"rows_{place}"],
                    state["is_valid"],
                    forms_keys=forms_keys,
                    trace=within(found, attention.name),
                )
            )
            known = ops.concatenate([*outputs, candidates], axis=-1)
            mixed = self.mixers[place](known)
        logits = self.head(
            ops.concatenate([self.output_network(mixed), candidates], axis=-1),
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        return Scores(logits, {}, {} if found is None else found.tensors)


@keras.saving.register_keras_serializable(package="sparsectr")
class TargetToHistory(keras.layers.Layer):
    """Multi-head attention of candidates to all behaviours.

        o = concat_h(softmax(q Wq^h (X Wk^h)^T / sqrt(d_h)) X Wv^h) Wo

    Few candidates need no keys and values: of the same products,
    `((q Wq^h) (Wk^h)^T) X^T` and `(softmax(...) X) Wv^h` take the history as
    it is.

    Args:
        num_heads: H.

    Call arguments:
        query: float `[B, C, d]`.
        rows: float `[B, L, d]`, X.
        row_mask: bool `[B, L]`; True = keep.
        forms_keys: Whether keys and values are made.
        trace: Gets `weights`, float32 `[B, C, H, L]`.

    Returns:
        float `[B, C, d]`, exactly 0 without a behaviour.

    Raises:
        ValueError: If `num_heads` does not divide d.

    Cost:
        O(L d^2 + C L d) with keys and values, else O(C L H d + C d^2). The one
        with fewer operations is also the faster one on a CPU, as measured.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(
        self,
        query_shape: Any,
        rows_shape: Any = None,
        row_mask_shape: Any = None,
    ) -> None:
        width = query_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width {width}. "
                f"Received: num_heads={self.num_heads}"
            )
        for name in ("query", "key", "value", "output"):
            projection = keras.layers.Dense(
                width,
                use_bias=False,
                name=f"{name}_projection",
                dtype=self.dtype_policy,
            )
            projection.build((None, None, width))
            setattr(self, f"{name}_projection", projection)
        self.built = True

    def call(
        self,
        query: Tensor,
        rows: Tensor,
        row_mask: Tensor,
        forms_keys: bool = False,
        trace: Trace | None = None,
    ) -> Tensor:
        query = self.query_projection(query)
        mask = ops.expand_dims(row_mask, 1)  # [B, 1, L]
        if not forms_keys:
            return self.output_projection(self._read(query, rows, mask, trace))
        attended = attend(
            query,
            self.key_projection(rows),
            self.value_projection(rows),
            None,
            mask,
            self.num_heads,
            lambda logits, kept, _: masked_exponentials(logits, kept),
            trace,
        )
        return self.output_projection(attended)

    def _read(
        self, query: Tensor, rows: Tensor, mask: Tensor, trace: Trace | None
    ) -> Tensor:
        """Returns the heads' outputs side by side, `[B, C, d]`."""
        heads, width = self.num_heads, query.shape[-1]
        batch, count = ops.shape(query)[0], ops.shape(query)[1]
        by_head = (width, heads, width // heads)

        def cut(projection: keras.layers.Dense) -> Tensor:
            kernel = ops.cast(projection.kernel, self.compute_dtype)
            return ops.reshape(kernel, by_head)  # [d, H, d_h]

        query = ops.reshape(query, (batch, count, *by_head[1:]))
        query = ops.einsum("bche,dhe->bchd", query, cut(self.key_projection))
        query = ops.reshape(query, (batch, count * heads, width))
        logits = ops.matmul(query, ops.transpose(rows, (0, 2, 1)))
        logits = ops.cast(logits, "float32") * by_head[2] ** -0.5
        weights, total = masked_exponentials(logits, mask)  # [B, C * H, L]
        if trace is not None:
            shares = ops.reshape(
                weights / total, (batch, count, heads, ops.shape(rows)[1])
            )
            trace.record("weights", shares)
        sums = ops.matmul(ops.cast(weights, rows.dtype), rows)
        means = ops.cast(ops.cast(sums, "float32") / total, rows.dtype)
        means = ops.reshape(means, (batch, count, heads, width))
        outputs = ops.einsum(
            "bchd,dhe->bche", means, cut(self.value_projection)
        )
        return ops.reshape(outputs, (batch, count, width))

    def compute_output_shape(
        self, query_shape: Any, rows_shape: Any, row_mask_shape: Any
    ) -> Any:
        return query_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
