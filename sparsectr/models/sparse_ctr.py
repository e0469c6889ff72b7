"""SparseCTR: click prediction that reads a whole behaviour history.

Axes: B batch, L history length, C candidates, d width, S keys a block,
T keys that have a place.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.dilated_attention import DilatedAttention
from sparsectr.layers.attention.evo_attention import EvoAttention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.attention.linformer_attention import LinformerAttention
from sparsectr.layers.attention.native_sparse_attention import (
    NativeSparseAttention,
)
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.attention.semi_local_attention import SemiLocalAttention
from sparsectr.layers.chunking.chunking import Chunking
from sparsectr.layers.chunking.fixed_chunking import FixedChunking
from sparsectr.layers.chunking.similarity_chunking import SimilarityChunking
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.dropout import Dropout
from sparsectr.layers.encoding.alibi import ALiBi
from sparsectr.layers.encoding.encoding import Encoding
from sparsectr.layers.encoding.hstu_bias import HSTUBias
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.encoding.rel_temporal import RelTemporal, initial_slopes
from sparsectr.layers.encoding.rope import RoPE
from sparsectr.layers.encoding.t5_bias import T5Bias
from sparsectr.layers.encoding.t_rope import TRoPE
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction.prediction_layer import PredictionLayer
from sparsectr.layers.sink.boundary_sinks import BoundarySinks
from sparsectr.layers.sink.key_value_sink import KeyValueSink
from sparsectr.layers.sink.learned_sink import LearnedSink
from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.layers.sink.off_by_one_sink import OffByOneSink
from sparsectr.layers.sink.sink import Sink
from sparsectr.layers.sparse_block import SparseBlock
from sparsectr.model_recipe import user_width
from sparsectr.models.ranking_model import (
    Inputs,
    RankingModel,
    Scores,
    UserState,
    with_one_column,
)
from sparsectr.ops.places import Places, places_of_history, places_of_request
from sparsectr.ops.trace import Trace, within

if TYPE_CHECKING:
    from configs.models.sparse_ctr import SparseCTRRecipe

_LOG_GAP_OF_SINK = 16
"""floor(log2(86400)), that of a day in seconds (Eq. 12)."""


SPARSE_ATTENTIONS: dict[str, type[Attention]] = {
    "dilated": DilatedAttention,
    "semi_local": SemiLocalAttention,
    "linformer": LinformerAttention,
    "nsa": NativeSparseAttention,
}


@keras.saving.register_keras_serializable(package="sparsectr")
class SparseCTR(RankingModel):
    """The model of the paper's Figure 1, from ids to click logits.

    Arguments, call arguments and returns are those of `RankingModel`.

    The state holds keys and values of every block, the places of the keys and
    the profile: for EvoAttention some 54 vectors a block, whatever the
    history's length. It is exact for one history and any later request, if
    `gap_to_request` is no field: a new behaviour can move every cut.

    Cost:
        O(L (P + m P + w)) attention in all blocks but the last, where only
        candidates are computed.
    """

    recipe: "SparseCTRRecipe"

    def __init__(
        self, schema: Any, recipe: "SparseCTRRecipe", **kwargs: Any
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
        self.user_mlp = keras.Sequential(
            [
                keras.layers.Dense(
                    recipe.width, activation="relu", name="hidden", dtype=policy
                ),
                keras.layers.Dense(recipe.width, name="output", dtype=policy),
            ],
            name="user_mlp",
        )
        self.dropout = Dropout(
            recipe.dropout_rate, name="dropout", dtype=policy
        )
        self.blocks = [
            SparseBlock(
                self.make_attention(), name=f"block_{index}", dtype=policy
            )
            for index in range(recipe.num_blocks)
        ]
        self.prediction = PredictionLayer(
            recipe.width,
            recipe.head_units,
            recipe.head_activation,
            name="prediction",
            dtype=policy,
        )

    def make_attention(self) -> Attention:
        """Returns the attention of one block."""
        recipe = self.recipe
        shared: dict[str, Any] = {
            "num_heads": recipe.num_heads,
            "encoding": self._make_encoding(),
            "sink": self._make_sink(),
            "output_gate": self._make_output_gate(),
            "name": "attention",
            "dtype": self.dtype_policy,
        }
        if recipe.attention == "full":
            return FullAttention(**shared)
        if recipe.attention in SPARSE_ATTENTIONS:
            arguments = recipe.sparse_arguments(recipe.attention)
            return SPARSE_ATTENTIONS[recipe.attention](**shared, **arguments)
        return EvoAttention(
            **shared,
            num_local=recipe.num_local,
            chunking=self._make_chunking(),
            has_user=user_width(recipe, self.schema) > 0,
            num_registers=recipe.num_registers,
            boundary_sinks=BoundarySinks(name="boundary_sinks")
            if recipe.boundary_sinks
            else None,
            branches=recipe.branches,
            num_newest=recipe.num_newest,
        )

    def _make_chunking(self) -> Chunking:
        recipe = self.recipe
        sizes = recipe.num_chunks, recipe.num_transition
        if recipe.chunking == "similarity":
            return SimilarityChunking(*sizes, name="chunking")
        if recipe.chunking == "balanced":
            return FixedChunking(*sizes, name="chunking")
        if recipe.chunking == "fixed":
            chunk_size = -(-recipe.max_history // recipe.num_chunks)
            return FixedChunking(*sizes, chunk_size, name="chunking")
        return TimeChunking(*sizes, name="chunking")

    def _make_encoding(self) -> Encoding:
        recipe = self.recipe
        if recipe.encoding == "none":
            return NoEncoding(name="encoding")
        if recipe.encoding == "hstu":
            # Of a candidate, the oldest behaviour is max_history rows away.
            return HSTUBias(recipe.max_history + 1, name="encoding")
        if recipe.encoding == "t5":
            return T5Bias(recipe.num_heads, name="encoding")
        if recipe.encoding == "rope":
            return RoPE(recipe.num_heads, name="encoding")
        if recipe.encoding in ("t_rope_relative", "t_rope_published"):
            return TRoPE(
                recipe.width,
                recipe.num_heads,
                is_relative=recipe.encoding == "t_rope_relative",
                name="encoding",
            )
        if recipe.encoding == "alibi":
            return ALiBi(recipe.num_heads, name="encoding")
        return RelTemporal(
            recipe.num_heads,
            self.schema.time_zone,
            recipe.temporal_biases,
            name="encoding",
        )

    def _make_sink(self) -> Sink:
        recipe = self.recipe
        if recipe.sink == "off_by_one":
            return OffByOneSink(name="sink")
        if recipe.sink == "key_value":
            return KeyValueSink(name="sink")
        if recipe.sink == "learned":
            # It starts as what a key of a day ago gets from its encoding:
            # from 0, heads that are steep in time would begin unread.
            has_time = "time" in recipe.temporal_biases
            has_time &= recipe.encoding == "rel_temporal"
            log_gap = -_LOG_GAP_OF_SINK * has_time
            slopes = initial_slopes(recipe.num_heads)
            return LearnedSink([log_gap * s for s in slopes], name="sink")
        return NoSink(name="sink")

    def _make_output_gate(self) -> OutputGate | None:
        recipe = self.recipe
        if recipe.output_gate == "none":
            return None
        return OutputGate(
            recipe.num_heads,
            by_element=recipe.output_gate == "element",
            name="output_gate",
            dtype=self.dtype_policy,
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        recipe = self.recipe
        profile = user_width(recipe, self.schema)
        rows = (None, None, recipe.width)
        self.embedding.build()
        if self._has_user_token:
            self.user_mlp.build((None, profile))
        for block in self.blocks:
            block.build(rows)
        self.prediction.build(rows, (None, profile) if profile else None)
        self.built = True

    def encode_user(
        self, inputs: Inputs, training: bool = False, trace: bool = False
    ) -> UserState:
        attention = self.blocks[0].attention
        if attention.picks_rows:
            inputs = with_one_column(inputs)
        user = self.embedding.user(inputs)
        behaviors = self.embedding.behaviors(inputs)  # [B, L, d]
        hidden = self.dropout(behaviors, training=training)
        if self._has_user_token:
            user_token = self.user_mlp(user)  # [B, d]
        else:
            user_token = ops.zeros(
                (ops.shape(hidden)[0], self.recipe.width), hidden.dtype
            )
        plan = attention.plan(
            places_of_history(inputs["behavior_time"]),
            behaviors,
            for_history=len(self.blocks) > 1,
        )

        found = Trace() if trace else None
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            hidden, encoded = block.encode(
                hidden,
                user_token,
                plan,
                is_last=index == len(self.blocks) - 1,
                trace=within(within(found, "history"), block.name),
            )
            keys.append(encoded.keys)
            values.append(encoded.values)

        state = {
            "keys": ops.stack(keys, axis=1),  # [B, blocks, S, d]
            "values": ops.stack(values, axis=1),
            "key_time": plan.keys.time,
            "key_has_fraction": plan.keys.has_fraction,
            "key_position": plan.keys.position
            + ops.zeros_like(plan.keys.time, dtype="int32"),
            "key_mask": plan.key_mask,
        }
        if user is not None:
            state["user"] = user
        if found is not None:
            found.record("behavior_mask", inputs["behavior_time"] > 0)
            state |= self._traced(plan)
            state |= {f"trace/{k}": v for k, v in found.tensors.items()}
        return state

    def _traced(self, plan: Any) -> dict[str, Any]:
        """Returns where histories are cut, if they are."""
        if not hasattr(plan, "chunks"):
            return {}
        return {
            "trace/chunk_start": plan.chunks.start,
            "trace/chunk_end": plan.chunks.end,
        }

    def score(
        self,
        state: UserState,
        inputs: Inputs,
        training: bool = False,
        trace: bool = False,
    ) -> Scores:
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        key_mask = state["key_mask"]
        num_placed = ops.shape(state["key_time"])[1]
        places = places_of_request(inputs["request_time"])
        features = self.blocks[0].attention.relate(
            places,
            Places(
                state["key_time"],
                state["key_position"],
                key_mask[:, :num_placed],
                state["key_has_fraction"],
            ),
            ops.shape(key_mask)[1],
        )
        # As slices of the stacks, their gradients would be padded to them.
        num_blocks = len(self.blocks)
        keys = ops.unstack(state["keys"], num_blocks, axis=1)
        values = ops.unstack(state["values"], num_blocks, axis=1)
        found = Trace() if trace else None
        for index, block in enumerate(self.blocks):
            candidates = block(
                candidates,
                keys[index],
                values[index],
                features,
                key_mask,
                places,
                trace=within(found, block.name),
            )
        logits = self.prediction(
            candidates,
            state.get("user"),
            candidate_mask=inputs.get("candidate_mask"),
            training=training,
        )
        tensors = {} if found is None else found.tensors
        tensors |= {
            name.removeprefix("trace/"): value
            for name, value in state.items()
            if name.startswith("trace/")
        }
        return Scores(logits, {}, tensors)

    @property
    def _has_user_token(self) -> bool:
        """Full attention has none, and so no use for an MLP of the user."""
        reads_user = self.blocks[0].attention.reads_user
        return reads_user and user_width(self.recipe, self.schema) > 0
