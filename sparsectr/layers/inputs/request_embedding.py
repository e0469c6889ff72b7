"""The input layer: ids and dense features to vectors.

Axes: B batch, L history length, C candidates, U user fields, d width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.time_field_ids import time_field_ids
from sparsectr.schema import (
    PADDING_ID,
    DatasetSchema,
    DenseField,
    Prefix,
    field_width,
)
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

    The field embeddings of a behaviour are concatenated with its numbers and
    mapped to width d; those of a candidate likewise. A set of ids has the mean
    of their embeddings, 0 without any. Fields that share a table in the schema
    share it here. Time fields are computed here, as ids of tables of their
    own: those of a behavior come behind its fields, those of a request behind
    those of each of its candidates.

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
            `behavior_<field>` `[B, L]`, `candidate_<field>` `[B, C]`, those
            of sets with one more axis, padded with 0; and float32 for numbers
            of the same three shapes; for time fields int64 `behavior_time`
            `[B, L]` and `request_time` `[B]`.

    Returns:
        `(user, behaviors, candidates)`: float `[B, U * embedding_dim +
        numbers]` or `None` without a user field, `[B, L, d]`, `[B, C, d]`.

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
        sizes = {table.name: table.size or 0 for table in schema.served_tables}
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
        times: dict[Prefix, int] = {
            "behavior": len(self._behavior_times),
            "candidate": len(self._request_times),
        }
        projections: dict[Prefix, Any] = {
            "behavior": self.behavior_projection,
            "candidate": self.candidate_projection,
        }
        for prefix, projection in projections.items():
            width = field_width(self.schema, prefix, self.embedding_dim)
            width += times[prefix] * self.embedding_dim
            projection.build((None, None, width))
        if self._adds_gaps:
            self.gap_projection.build((None, None, self.embedding_dim))
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
        tables += [field.table for field in self._request_times]
        rows = [
            aligned(table, place * self.embedding_dim)
            for place, table in enumerate(tables)
        ]
        numbers = kernel[len(tables) * self.embedding_dim :]
        return ops.concatenate([*rows, numbers], axis=0)

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
        """Returns the flattened e_U with the user's numbers, or `None`."""
        if not field_width(self.schema, "user", self.embedding_dim):
            return None
        return self._concatenated("user", inputs)

    def behaviors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns E_B, `[B, L, d]`."""
        return self.behavior_projection(self.behavior_features(inputs))

    def behavior_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns what `behavior_projection` makes E_B of.

        Returns:
            float `[B, L, sum of widths]`: ids and sets, time fields, numbers,
            each in the order of the schema.
        """
        times = [
            self._time_rows(
                field, inputs["behavior_time"], inputs.get("request_time")
            )
            for field in self._behavior_times
        ]
        return self._concatenated("behavior", inputs, times)

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
        first = self.schema.candidate_fields[0].name
        shape = (1, ops.shape(inputs[f"candidate_{first}"])[1], 1)
        times = []
        for field in self._request_times:
            rows = self._time_rows(field, inputs["request_time"])
            times.append(ops.tile(ops.expand_dims(rows, 1), shape))
        return self.candidate_projection(
            self._concatenated("candidate", inputs, times)
        )

    def _time_rows(
        self, field: TimeField, time: Tensor, request_time: Tensor | None = None
    ) -> Tensor:
        zone = self.schema.time_zone
        ids = time_field_ids(field.name, time, zone, request_time)
        return self.tables[field.table](ids)

    def _concatenated(
        self,
        prefix: Prefix,
        inputs: Mapping[str, Tensor],
        times: Sequence[Tensor] = (),
    ) -> Tensor:
        """Returns embedded ids, sets and times, and behind them the numbers."""
        parts = []
        for field in self.schema.ids(prefix):
            ids = inputs[f"{prefix}_{field.name}"]
            rows = self.tables[field.table](ids)
            parts.append(_mean_of_set(rows, ids) if field.is_set else rows)
        parts += times
        for number in self.schema.numbers(prefix):
            value = _transform(number, inputs[f"{prefix}_{number.name}"])
            value = ops.cast(value, self.compute_dtype)
            parts.append(ops.expand_dims(value, -1))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, inputs_shape: Mapping[str, Any]) -> Any:
        behavior = self.schema.behavior_fields[0].name
        candidate = self.schema.candidate_fields[0].name
        behaviors_shape = inputs_shape[f"behavior_{behavior}"][:2]
        user_width = field_width(self.schema, "user", self.embedding_dim)
        return (
            (behaviors_shape[0], user_width) if user_width else None,
            (*behaviors_shape, self.width),
            (*inputs_shape[f"candidate_{candidate}"][:2], self.width),
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


def _mean_of_set(rows: Tensor, ids: Tensor) -> Tensor:
    """Returns the mean of the rows whose id is not padding, or 0.

    Args:
        rows: float `[..., K, width]`.
        ids: int32 `[..., K]`.
    """
    is_id = ops.cast(ops.not_equal(ids, PADDING_ID), "float32")
    count = ops.maximum(ops.sum(is_id, axis=-1, keepdims=True), 1.0)
    share = ops.cast(is_id / count, rows.dtype)
    return ops.sum(rows * ops.expand_dims(share, -1), axis=-2)


def _transform(field: DenseField, value: Tensor) -> Tensor:
    """Applies a dense field's transform in float32; missing becomes 0."""
    value = ops.cast(value, "float32")
    missing = ops.logical_not(ops.isfinite(value))
    value = ops.where(missing, 0.0, value)
    if field.transform == "log1p":
        value = ops.log1p(ops.maximum(value, 0.0))
    return ops.where(missing, 0.0, (value - field.mean) / field.scale)
