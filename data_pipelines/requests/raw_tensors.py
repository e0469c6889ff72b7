"""The inputs of a request in raw values, by name.

Nothing here imports TensorFlow or Arrow, so that a client may.

Axes: B requests, L history length, C candidates.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.requests.tensor_type import TensorType
from sparsectr.schema import DatasetSchema, Prefix

PROBABILITY = "probability"
"""Name of the output, float32 `[B, C]`."""

MISSING_INTEGER = -(2**63)
"""Raw value of an integer that is missing."""

MISSING_TEXT = ""
"""Raw value of a text that is missing."""

_LEFT = (
    "left: oldest to newest, the last column is the newest behavior; any "
    "value where behavior_time is 0"
)
_LEFT_TIME = "left: oldest to newest, 0 before the oldest"
RIGHT_PADDING = (
    "right: any value behind the last candidate, scores there mean nothing"
)

_KINDS: dict[Prefix, tuple[tuple[str, ...], str, str | None]] = {
    "user": (("B",), "profile", None),
    "behavior": (("B", "L"), "behaviors", _LEFT),
    "candidate": (("B", "C"), "candidates", RIGHT_PADDING),
}
"""Shape of the raw values of a prefix, whose they are, and their padding."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of a signature.

    Args:
        name: Its name.
        dtype: Name of its NumPy dtype, or "string".
        shape: An int or the letter of an axis for each dimension.
        meaning: What it is, in a sentence.
        padding: How it is padded; `None` if it is not.
        id_space: For raw values of a table: the table, its kind, size and
            value type, and the value that means missing.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str
    padding: str | None = None
    id_space: Mapping[str, Any] | None = None


def user_inputs(schema: DatasetSchema) -> tuple[Tensor, ...]:
    """Returns the raw profile."""
    return tuple(_raw(schema, "user"))


def behavior_inputs(schema: DatasetSchema) -> tuple[Tensor, ...]:
    """Returns the raw history and its times."""
    return (
        *_raw(schema, "behavior"),
        Tensor(
            "behavior_time",
            "int64",
            ("B", "L"),
            "Unix seconds of the behaviors, all before the request",
            _LEFT_TIME,
        ),
    )


def candidate_inputs(schema: DatasetSchema) -> tuple[Tensor, ...]:
    """Returns the raw candidates and the time that they are shown."""
    counted = {
        f"candidate_{number.name}": statistic.meaning(number)
        for statistic in schema.statistics
        for number in statistic.numbers
    }
    return (
        Tensor("request_time", "int64", ("B",), "Unix seconds of the request"),
        *(
            dataclasses.replace(
                tensor, meaning=counted.get(tensor.name, tensor.meaning)
            )
            for tensor in _raw(schema, "candidate")
        ),
    )


def request_types(schema: DatasetSchema) -> dict[str, TensorType]:
    """Returns the type of each input of a whole request."""
    tensors = (
        *user_inputs(schema),
        *behavior_inputs(schema),
        *candidate_inputs(schema),
    )
    return {
        tensor.name: TensorType(
            tensor.dtype,
            tuple(n if isinstance(n, int) else -1 for n in tensor.shape),
        )
        for tensor in tensors
    }


def _raw(schema: DatasetSchema, prefix: Prefix) -> Iterator[Tensor]:
    """Yields the tensors of raw values: ids, sets of ids, and numbers."""
    shape, of, padding = _KINDS[prefix]
    for field in schema.ids(prefix):
        table = schema.table(field.table)
        is_integer = table.value_type == "int"
        missing = MISSING_INTEGER if is_integer else MISSING_TEXT
        meaning = f"{field.name} of the {of} as logged, {missing!r} if missing"
        own_shape: tuple[str | int, ...] = shape
        if field.max_values is not None:
            own_shape = (*shape, field.max_values)
            meaning = (
                f"{field.name} of the {of} as logged, at most "
                f"{field.max_values} each, {missing!r} behind the last"
            )
        yield Tensor(
            name=f"{prefix}_{field.name}",
            dtype="int64" if is_integer else "string",
            shape=own_shape,
            meaning=meaning,
            padding=padding,
            id_space={
                "table": table.name,
                "kind": table.kind,
                "size": table.size,
                "value_type": table.value_type,
                # As text: a double, which JSON readers may use, cannot hold
                # the integer.
                "missing": str(missing),
            },
        )
    for number in schema.numbers(prefix):
        yield Tensor(
            f"{prefix}_{number.name}",
            "float32",
            shape,
            f"{number.name} of the {of} as logged, NaN if missing",
            padding,
        )
