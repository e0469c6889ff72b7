"""The input layer: ids and dense features to vectors.

Axes: B batch, L history length, C candidates, U user fields, d width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.time_field_ids import time_field_ids
from sparsectr.schema import CategoricalField, DatasetSchema, DenseField
from sparsectr.time_fields import (
    GAP_TO_REQUEST,
    TIME_FIELDS,
    TimeField,
    behavior_time_fields,
    request_time_fields,
    time_tables,
)


@keras.saving.register_keras_serializable(package="sparsectr")
class RequestEmbedding(keras.layers.Layer):
    """Embeds users, behaviours and candidates by a schema (section 3.2).

    The field embeddings of a behaviour are concatenated and mapped to width
    d; those of a candidate, with its dense features, likewise. Fields that
    share a table in the schema share it here. Time fields are computed here,
    as ids of tables of their own: those of a behavior come behind its fields,
    those of a request behind those of each of its candidates.

    Args:
        schema: A `DatasetSchema` whose tables all have a size, or the dict
            that `DatasetSchema.from_dict` takes.
        embedding_dim: Width of every table.
        width: d.
        gap_to_request: Where that time field is read, if the schema has it:
            "encode_user" for with the other fields of a behavior, or "score"
            for apart, by `gaps_to_request`.

    Call arguments:
        inputs: The dict of tensors of a request: int32 `user_<field>` `[B]`,
            `behavior_<field>` `[B, L]`, `candidate_<field>` `[B, C]`, and
            float32 `candidate_<dense field>` `[B, C]`; for time fields int64
            `behavior_time` `[B, L]` and `request_time` `[B]`.

    Returns:
        `(user, behaviors, candidates)`: float `[B, U * embedding_dim]` or
        `None` without user fields, `[B, L, d]`, `[B, C, d]`.

    Raises:
        ValueError: If a table of the schema has no size yet.

    Differs from the paper:
        Initial values, on which it is silent: the two projections begin with
        the same weights for a table that they share, so that equal ids are
        alike from the first step on. A sample of 50 thousand requests is too
        small to learn that (`benchmarks/LOG.md`).
    """

    def __init__(
        self,
        schema: DatasetSchema | Mapping[str, Any],
        embedding_dim: int,
        width: int,
        gap_to_request: str = "encode_user",
        **kwargs: Any,
    ) -> None:
        # Dense features are transformed before they are cast.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(schema, DatasetSchema):
            schema = DatasetSchema.from_dict(schema)
        if not schema.is_resolved:
            raise ValueError(
                "Every table of `schema` must have a size. Without one: "
                f"{[t.name for t in schema.tables if t.size is None]}"
            )
        self.schema = schema
        self.embedding_dim = embedding_dim
        self.width = width
        self.gap_to_request = gap_to_request
        times = schema.time_fields
        self._behavior_times = behavior_time_fields(times)
        self._request_times = request_time_fields(times)
        self._adds_gaps = GAP_TO_REQUEST in times and gap_to_request == "score"
        if GAP_TO_REQUEST in times and not self._adds_gaps:
            self._behavior_times += (TIME_FIELDS[GAP_TO_REQUEST],)
        sizes = {table.name: table.size or 0 for table in schema.tables}
        self.tables = {
            name: EmbeddingTable(
                size,
                embedding_dim,
                name=f"table_{name}",
                dtype=self.dtype_policy,
            )
            for name, size in {**sizes, **time_tables(times)}.items()
        }
        self.behavior_projection = keras.layers.Dense(
            width, name="behavior_projection", dtype=self.dtype_policy
        )
        # Made once: its seed must not depend on how many devices call it.
        self._glorot_uniform = keras.initializers.GlorotUniform()
        self.candidate_projection = keras.layers.Dense(
            width,
            name="candidate_projection",
            dtype=self.dtype_policy,
            kernel_initializer=self._aligned_kernel,
        )
        if self._adds_gaps:
            # As large as the rows that the other projection has for it.
            self.gap_projection = keras.layers.Dense(
                width,
                use_bias=False,
                name="gap_projection",
                dtype=self.dtype_policy,
            )

    def build(self, inputs_shape: Any = None) -> None:
        for table in self.tables.values():
            table.build()
        behavior = len(self._behavior_tables()) * self.embedding_dim
        candidate = len(self.schema.candidate_fields) + len(self._request_times)
        candidate *= self.embedding_dim
        candidate += len(self.schema.candidate_dense_fields)
        if self._adds_gaps:
            self.gap_projection.build((None, None, self.embedding_dim))
        self.behavior_projection.build((None, None, behavior))
        self.candidate_projection.build((None, None, candidate))
        self.built = True

    def _aligned_kernel(self, shape: Any, dtype: str | None = None) -> Tensor:
        """Initial kernel of candidates, alike where a table is shared.

        A category then points the same way in a candidate as in a behavior
        before the first step.
        """
        kernel = self._glorot_uniform(shape, dtype)
        behavior_tables = self._behavior_tables()

        def aligned(table: str, start: int) -> Tensor:
            source = kernel
            if table in behavior_tables:
                source = ops.convert_to_tensor(self.behavior_projection.kernel)
                start = behavior_tables.index(table) * self.embedding_dim
            return source[start : start + self.embedding_dim]

        tables = [field.table for field in self.schema.candidate_fields]
        dense = len(tables) * self.embedding_dim
        times = dense + len(self.schema.candidate_dense_fields)
        rows = [
            aligned(table, place * self.embedding_dim)
            for place, table in enumerate(tables)
        ]
        rows.append(kernel[dense:times])
        rows += [
            aligned(field.table, times + place * self.embedding_dim)
            for place, field in enumerate(self._request_times)
        ]
        return ops.concatenate(rows, axis=0)

    def _behavior_tables(self) -> list[str]:
        """Returns the tables of a behavior's fields, in their order."""
        fields = [field.table for field in self.schema.behavior_fields]
        return fields + [field.table for field in self._behavior_times]

    def call(
        self, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        return (
            self.user(inputs),
            self.behaviors(inputs),
            self.candidates(inputs),
        )

    def user(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the flattened e_U, `[B, U * embedding_dim]`, or `None`."""
        if not self.schema.user_fields:
            return None
        return self._concatenated("user", self.schema.user_fields, inputs)

    def behaviors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns E_B, `[B, L, d]`."""
        fields = self.schema.behavior_fields
        parts = [self._concatenated("behavior", fields, inputs)]
        parts += [
            self._time_rows(
                field, inputs["behavior_time"], inputs.get("request_time")
            )
            for field in self._behavior_times
        ]
        return self.behavior_projection(ops.concatenate(parts, axis=-1))

    def gaps_to_request(
        self, behavior_time: Tensor, request_time: Tensor
    ) -> Tensor:
        """Returns what `gap_to_request="score"` adds to E_B in `score`.

        The projection of a behavior's fields is a sum over them: that of the
        gap can as well be added when the request is known.

        Args:
            behavior_time: int64 `[B, L]`, Unix seconds, 0 for padding.
            request_time: int64 `[B]`, Unix seconds.

        Returns:
            float `[B, L, d]`.
        """
        field = TIME_FIELDS[GAP_TO_REQUEST]
        rows = self._time_rows(field, behavior_time, request_time)
        return self.gap_projection(rows)

    def candidates(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the candidates' part of E_S, `[B, C, d]`."""
        parts = [
            self._concatenated(
                "candidate", self.schema.candidate_fields, inputs
            )
        ]
        for field in self.schema.candidate_dense_fields:
            value = _transform(field, inputs[f"candidate_{field.name}"])
            value = ops.cast(value, self.compute_dtype)
            parts.append(ops.expand_dims(value, -1))
        for time_field in self._request_times:
            rows = self._time_rows(time_field, inputs["request_time"])
            shape = (1, ops.shape(parts[0])[1], 1)
            parts.append(ops.tile(ops.expand_dims(rows, 1), shape))
        return self.candidate_projection(ops.concatenate(parts, axis=-1))

    def _time_rows(
        self, field: TimeField, time: Tensor, request_time: Tensor | None = None
    ) -> Tensor:
        zone = self.schema.time_zone
        ids = time_field_ids(field.name, time, zone, request_time)
        return self.tables[field.table](ids)

    def _concatenated(
        self,
        prefix: str,
        fields: tuple[CategoricalField, ...],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return ops.concatenate(
            [
                self.tables[field.table](inputs[f"{prefix}_{field.name}"])
                for field in fields
            ],
            axis=-1,
        )

    def compute_output_shape(self, inputs_shape: Mapping[str, Any]) -> Any:
        behavior = self.schema.behavior_fields[0].name
        candidate = self.schema.candidate_fields[0].name
        behaviors_shape = inputs_shape[f"behavior_{behavior}"]
        user_width = len(self.schema.user_fields) * self.embedding_dim
        return (
            (behaviors_shape[0], user_width) if user_width else None,
            (*behaviors_shape, self.width),
            (*inputs_shape[f"candidate_{candidate}"], self.width),
        )

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Any:
        shapes = self.compute_output_shape(
            {name: tensor.shape for name, tensor in inputs.items()}
        )
        return tuple(
            shape and keras.KerasTensor(shape, self.compute_dtype)
            for shape in shapes
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": dataclasses.asdict(self.schema),
            "embedding_dim": self.embedding_dim,
            "width": self.width,
            "gap_to_request": self.gap_to_request,
        }


def _transform(field: DenseField, value: Tensor) -> Tensor:
    """Applies a dense field's transform in float32; missing becomes 0."""
    value = ops.cast(value, "float32")
    missing = ops.logical_not(ops.isfinite(value))
    value = ops.where(missing, 0.0, value)
    if field.transform == "log1p":
        value = ops.log1p(ops.maximum(value, 0.0))
    return ops.where(missing, 0.0, (value - field.mean) / field.scale)
