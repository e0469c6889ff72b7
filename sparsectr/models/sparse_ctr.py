"""SparseCTR: click prediction that reads a whole behaviour history.

Axes: B batch, L history length, C candidates, d width, S keys a block.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sparsectr.layers.attention.evo_attention import (
    candidate_features,
    plan_evo_attention,
)
from sparsectr.layers.attention.full_attention import plan_full_attention
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction_layer import PredictionLayer
from sparsectr.layers.sparse_block import SparseBlock
from sparsectr.schema import DatasetSchema

UserState = dict[str, Any]
"""All that scoring needs of a user, as named dense tensors."""


@keras.saving.register_keras_serializable(package="sparsectr")
class SparseCTR(keras.Model):
    """The model of the paper's Figure 1, from ids to click logits.

    A request is scored in two steps, of which the whole pass is made:
    `encode_user` turns profile and history into a small state that no
    candidate has entered, and `score` reads the state for any number of
    candidates, each of which sees the user and itself alone.

    Args:
        schema: A resolved `DatasetSchema`, or its dict.
        width: d.
        embedding_dim: Width of the embedding tables.
        num_blocks: SparseBlocks.
        num_heads: H.
        num_chunks: P.
        num_transition: m.
        num_local: w.
        attention: "evo", or "full" for full attention (variant A1).
        temporal_bias: RelTemporal on or off (variant B1).
        head_units: Hidden units of the prediction MLP.
        dropout_rate: Dropout on embedded behaviours and candidates.

    Call arguments:
        inputs: The dict of tensors of a request: `user_<field>` `[B]`,
            `behavior_<field>` `[B, L]`, `behavior_time` `[B, L]` in Unix
            seconds, left-padded with 0, `request_time` `[B]`,
            `candidate_<field>` `[B, C]`. Other entries are not read.

    Returns:
        float32 `[B, C]`, logits.

    Raises:
        ValueError: If an argument is out of range.

    Cost:
        O(L (P + m P + w)) attention in all blocks but the last, where only
        candidates are computed.
    """

    def __init__(
        self,
        schema: DatasetSchema | Mapping[str, Any],
        width: int = 32,
        embedding_dim: int = 32,
        num_blocks: int = 2,
        num_heads: int = 8,
        num_chunks: int = 16,
        num_transition: int = 2,
        num_local: int = 5,
        attention: str = "evo",
        temporal_bias: bool = True,
        head_units: int = 32,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # Dense features are transformed before they are cast.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(schema, DatasetSchema):
            schema = DatasetSchema.from_dict(schema)
        if num_blocks < 1:
            raise ValueError(
                "`num_blocks` must be at least 1. "
                f"Received: num_blocks={num_blocks}"
            )
        self.schema = schema
        self.num_local = num_local
        self.attention = attention
        self._arguments: dict[str, Any] = {
            "width": width,
            "embedding_dim": embedding_dim,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "num_chunks": num_chunks,
            "num_transition": num_transition,
            "num_local": num_local,
            "attention": attention,
            "temporal_bias": temporal_bias,
            "head_units": head_units,
            "dropout_rate": dropout_rate,
        }
        policy = self.dtype_policy
        self.embedding = RequestEmbedding(
            schema, embedding_dim, width, name="embedding", dtype=policy
        )
        self.user_mlp = keras.Sequential(
            [
                keras.layers.Dense(width, activation="relu", dtype=policy),
                keras.layers.Dense(width, dtype=policy),
            ],
            name="user_mlp",
        )
        self.dropout = keras.layers.Dropout(
            dropout_rate, name="dropout", dtype=policy
        )
        self.time_chunking = TimeChunking(
            num_chunks, num_transition, name="time_chunking"
        )
        self.blocks = [
            SparseBlock(
                num_heads,
                num_chunks,
                num_transition,
                attention,
                temporal_bias,
                name=f"block_{index}",
                dtype=policy,
            )
            for index in range(num_blocks)
        ]
        self.prediction = PredictionLayer(
            width, head_units, name="prediction", dtype=policy
        )

    def build(self, inputs_shape: Any = None) -> None:
        """Creates all weights; their shapes follow from the schema."""
        width = self._arguments["width"]
        user_width = (
            len(self.schema.user_fields) * self._arguments["embedding_dim"]
        )
        rows = (None, None, width)
        self.embedding.build()
        if self._has_user_key:
            self.user_mlp.build((None, user_width))
        for block in self.blocks:
            block.build(rows)
        self.prediction.build(rows, (None, user_width) if user_width else None)
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        state = self.encode_user(inputs, training=training)
        return self.score(state, inputs, training=training)

    def encode_user(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> UserState:
        """Turns profile and history into what scoring needs of a user.

        Args:
            inputs: The user and behaviour tensors of `call`.
            training: Whether dropout is applied.

        Returns:
            `keys` and `values`, float `[B, num_blocks, S, d]`; `key_time`,
            int64 `[B, T]`, Unix seconds, of the first T keys (the user's has
            none); `key_mask`, bool `[B, S]`; and, if the schema has user
            fields, `user`, float `[B, U * embedding_dim]`.
        """
        inputs = _with_one_column(inputs)
        user = self.embedding.user(inputs)
        hidden = self.embedding.behaviors(inputs)  # [B, L, d]
        hidden = self.dropout(hidden, training=training)
        if self._has_user_key:
            user_token = self.user_mlp(user)  # [B, d]
        else:
            user_token = ops.zeros_like(hidden[:, 0])
        plan = self.plan(inputs["behavior_time"])

        keys, values = [], []
        for index, block in enumerate(self.blocks):
            hidden, block_keys, block_values = block.encode(
                hidden,
                user_token,
                plan,
                is_last=index == len(self.blocks) - 1,
            )
            keys.append(block_keys)
            values.append(block_values)

        state = {
            "keys": ops.stack(keys, axis=1),
            "values": ops.stack(values, axis=1),
            "key_time": plan.key_time,
            "key_mask": plan.key_mask,
        }
        return state if user is None else {**state, "user": user}

    def score(
        self,
        state: UserState,
        inputs: Mapping[str, Any],
        training: bool = False,
    ) -> Any:
        """Scores candidates for users that are already encoded.

        Args:
            state: What `encode_user` returns.
            inputs: `request_time` and the candidate tensors of `call`.
            training: Whether dropout is applied.

        Returns:
            float32 `[B, C]`, logits.
        """
        candidates = self.embedding.candidates(inputs)  # [B, C, d]
        candidates = self.dropout(candidates, training=training)
        features = candidate_features(
            inputs["request_time"],
            state["key_time"],
            state["key_mask"].shape[1],
            self.schema.utc_offset_hours,
        )
        for index, block in enumerate(self.blocks):
            candidates = block(
                candidates,
                state["keys"][:, index],
                state["values"][:, index],
                features,
                state["key_mask"],
            )
        return self.prediction(candidates, state.get("user"))

    @property
    def _has_user_key(self) -> bool:
        """Full attention has none, and so no use for an MLP of the user."""
        return self.attention == "evo" and bool(self.schema.user_fields)

    def plan(self, behavior_time: Any) -> Any:
        """Does the work that depends on times alone, for all blocks.

        Args:
            behavior_time: int64 `[B, L]`, Unix seconds, left-padded with 0.

        Returns:
            `EvoPlan` or `FullPlan`.
        """
        for_history = len(self.blocks) > 1
        if self.attention == "full":
            return plan_full_attention(
                behavior_time,
                utc_offset_hours=self.schema.utc_offset_hours,
                for_history=for_history,
            )
        return plan_evo_attention(
            behavior_time,
            self.time_chunking(behavior_time),
            num_local=self.num_local,
            has_user=self._has_user_key,
            utc_offset_hours=self.schema.utc_offset_hours,
            for_history=for_history,
        )

    def compute_output_shape(self, inputs_shape: Mapping[str, Any]) -> Any:
        field = self.schema.candidate_fields[0].name
        return inputs_shape[f"candidate_{field}"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": dataclasses.asdict(self.schema),
            **self._arguments,
        }


def _with_one_column(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds a column of padding to histories that may have none.

    The gathers need a row to point at when the whole batch has no history.
    Where the length is static and positive, nothing is added.
    """
    length = inputs["behavior_time"].shape[1]
    if length is not None and length > 0:
        return inputs
    return {
        name: ops.pad(value, [(0, 0), (1, 0)])
        if name.startswith("behavior_")
        else value
        for name, value in inputs.items()
    }
