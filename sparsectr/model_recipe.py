"""What a model is, before there is any TensorFlow.

A recipe in `configs/models/` is a subclass of `ModelRecipe`: a frozen
dataclass whose fields are flags, and the facts that flags, signatures, checks
and reports need of a model without building it. `build` loads the network.
"""

import dataclasses
import importlib
import itertools
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from sparsectr.config_fields import check_fields, config_field, require
from sparsectr.schema import DatasetSchema, field_width
from sparsectr.time_fields import (
    GAP_TO_REQUEST,
    behavior_time_fields,
    request_time_fields,
    time_tables,
)

if TYPE_CHECKING:
    from sparsectr.models.ranking_model import RankingModel

Preset = Mapping[str, Any]


class RequestShape(NamedTuple):
    """The size of a batch of requests.

    Attributes:
        batch_size: B.
        length: L.
        num_candidates: C.
    """

    batch_size: int
    length: int
    num_candidates: int


def _size_of(axis: int | str, length: int) -> int:
    """Returns an axis of `StateTensor.shape` for a history of `length`."""
    if isinstance(axis, int):
        return axis
    found = _AXIS.fullmatch(axis)
    if found is None:
        raise ValueError(
            '`shape` must have numbers, "L", "L/4", "min(L, 100)" or "L + 21" '
            f"and the like. Received: {axis!r}"
        )
    count = -(-length // int(found["part"] or 1))
    return min(count, int(found["most"] or count)) + int(found["more"] or 0)


_AXIS = re.compile(
    r"(?P<min>min\()?L(/(?P<part>[1-9]\d*))?(?(min), (?P<most>\d+)\))"
    r"( \+ (?P<more>[1-9]\d*))?"
)


class StateTensor(NamedTuple):
    """One tensor of a user state.

    Attributes:
        name: Its key in the dict that `encode_user` returns.
        dtype: Name of its NumPy dtype; what is float32 here is computed in
            the model's own precision.
        shape: Sizes behind the batch axis: numbers, or "L" where there is one
            for each column of a history, padding included; "L/4" for one of
            every four, rounded up, "min(L/4, 100)" for at most so many, and
            "L + 21" for so many more.
        meaning: What it is, in a sentence.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str

    def sizes(self, length: int) -> list[int]:
        """Returns its shape for one user with a history of `length`."""
        return [_size_of(axis, length) for axis in self.shape]

    def num_bytes(self, length: int) -> int:
        """Returns its size for one user with a history of `length`."""
        sizes = self.sizes(length)
        width = {"bool": 1, "int32": 4, "float32": 4, "int64": 8}[self.dtype]
        return width * math.prod(sizes)


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """What `encode_user` hands to `score`.

    Args:
        tensors: Its tensors, in order.
        bound_to_request_time: Whether the state holds for one request time
            alone, and not for a later request of the same history.
    """

    tensors: tuple[StateTensor, ...]
    bound_to_request_time: bool = False

    def num_bytes(self, length: int) -> int:
        """Returns the bytes of one user's state, history of `length`."""
        return sum(tensor.num_bytes(length) for tensor in self.tensors)


class TableSpec(NamedTuple):
    """One embedding table of a model.

    Attributes:
        name: Its name.
        num_rows: Rows, the two reserved ones included.
        width: Columns.
        ids_of: The table of the schema whose ids it is read by; none if the
            ids are computed.
    """

    name: str
    num_rows: int
    width: int
    ids_of: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """What every model has. A model of its own adds fields.

    Its name is that of its file. Its network is a `RankingModel` whose
    constructor takes schema and recipe.
    """

    network: ClassVar[str]
    """Where the network is: `package.module:Class`."""

    presets: ClassVar[Mapping[str, Preset]] = {}
    """Named sets of values for `--model.preset`."""

    reads_gap_in_score: ClassVar[bool] = False
    """Whether `score` sees the behaviors and their times, and so can read
    `gap_to_request`."""

    width: int = config_field(32, "Width d of the sequence.", minimum=1)
    embedding_dim: int = config_field(
        32, "Width of every embedding table.", minimum=1
    )
    head_units: tuple[int, ...] = config_field(
        (32,), "Hidden widths of the prediction MLP."
    )
    head_activation: str = config_field(
        "relu",
        "Activation of the prediction MLP; dice is DIN's, which has running "
        "statistics.",
        choices=("relu", "leaky_relu", "dice"),
    )
    dropout_rate: float = config_field(
        0.0, "Dropout on the embedded sequence, in training."
    )
    hidden_training_fields: float = config_field(
        0.1, "Share of candidates whose training fields are hidden."
    )
    gap_to_request: str = config_field(
        "encode_user",
        "Where the time field gap_to_request is read, if the data set has it: "
        "encode_user, which binds a user state to one request time, or score, "
        "for models whose state holds the behaviors with their times.",
        choices=("encode_user", "score"),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            bool(self.head_units) and min(self.head_units) >= 1,
            "head_units",
            "be at least one number, each at least 1",
            self.head_units,
        )
        for name in ("dropout_rate", "hidden_training_fields"):
            share = getattr(self, name)
            require(
                0.0 <= share < 1.0, name, "be at least 0 and below 1", share
            )
        require(
            self.reads_gap_in_score or self.gap_to_request == "encode_user",
            "gap_to_request",
            f"be encode_user for {self.name}, whose state does not hold the "
            "behaviors with their times",
            self.gap_to_request,
        )

    @property
    def name(self) -> str:
        """The model's name, which is that of its recipe's file."""
        return type(self).__module__.rpartition(".")[2]

    def binds_state(self, schema: DatasetSchema) -> bool:
        """Whether a user state holds for one request time alone."""
        has_gap = GAP_TO_REQUEST in schema.time_fields
        return has_gap and self.gap_to_request == "encode_user"

    def scores_gap(self, schema: DatasetSchema) -> bool:
        """Whether `score` reads how long ago a behavior was."""
        has_gap = GAP_TO_REQUEST in schema.time_fields
        return has_gap and self.gap_to_request == "score"

    def check_schema(self, schema: DatasetSchema) -> None:
        """Checks that the model can be made for a data set.

        Args:
            schema: The fields, resolved.

        Raises:
            InputError: If the data set lacks what the model needs. It names
                the flag that mends it.
        """

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns what the model knows of a user before any candidate.

        Args:
            schema: The fields, resolved.
        """
        raise NotImplementedError

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass.

        Those of its matrix products, as many as the equations need: what an
        implementation computes beside them is not counted.

        Args:
            schema: The fields, resolved.
            shape: The batch.
        """
        raise NotImplementedError

    def tables(self, schema: DatasetSchema) -> tuple[TableSpec, ...]:
        """Returns the embedding tables of the model.

        Args:
            schema: The fields, resolved.
        """
        width, times = self.embedding_dim, time_tables(schema.time_fields)
        return (
            *(
                TableSpec(table.name, table.size or 0, width, table.name)
                for table in schema.served_tables
            ),
            *(TableSpec(name, size, width) for name, size in times.items()),
        )

    def with_preset(self, preset: str) -> Self:
        """Returns a copy with the values of a named preset.

        Raises:
            ValueError: If there is no such preset.
        """
        rule = f"be one of {', '.join(self.presets)}"
        require(preset in self.presets, "preset", rule, preset)
        return dataclasses.replace(self, **self.presets[preset])

    def to_dict(self) -> dict[str, Any]:
        """Returns name and values, as `recipe_from_dict` takes them."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def build(
        self, schema: DatasetSchema, dtype: str = "float32"
    ) -> "RankingModel":
        """Returns the network with all its weights created.

        Args:
            schema: The fields, resolved.
            dtype: Keras dtype policy, "float32" or "mixed_bfloat16".

        Raises:
            InputError: If it cannot be made for this schema.
        """
        self.check_schema(schema)
        module, _, name = self.network.partition(":")
        network = getattr(importlib.import_module(module), name)
        model: RankingModel = network(schema, self, dtype=dtype, name=self.name)
        model.build()
        return model


def user_width(recipe: ModelRecipe, schema: DatasetSchema) -> int:
    """Returns the width of a user's embedded profile, 0 without one."""
    return field_width(schema, "user", recipe.embedding_dim)


def user_state(
    recipe: ModelRecipe, schema: DatasetSchema
) -> tuple[StateTensor, ...]:
    """Returns the part of a state that most models have: the profile."""
    width = user_width(recipe, schema)
    if not width:
        return ()
    return (StateTensor("user", "float32", (width,), "The user's profile"),)


def embedding_flops(
    recipe: ModelRecipe, schema: DatasetSchema, shape: RequestShape
) -> int:
    """Returns operations of `RequestEmbedding`: its projections."""
    times, width = schema.time_fields, recipe.embedding_dim
    num_behavior = len(behavior_time_fields(times)) + (GAP_TO_REQUEST in times)
    behavior = field_width(schema, "behavior", width) + num_behavior * width
    num_request = len(request_time_fields(times))
    candidate = field_width(schema, "candidate", width) + num_request * width
    rows = shape.length * behavior + shape.num_candidates * candidate
    return 2 * shape.batch_size * rows * recipe.width


def prediction_flops(
    recipe: ModelRecipe, schema: DatasetSchema, shape: RequestShape
) -> int:
    """Returns operations of `PredictionLayer` (Eq. 17)."""
    width = recipe.width
    projections = shape.num_candidates * width**2
    projections += user_width(recipe, schema) * width
    return 2 * shape.batch_size * projections + head_flops(recipe, shape, width)


def head_flops(
    recipe: ModelRecipe, shape: RequestShape, width: int, shared: int = 0
) -> int:
    """Returns operations of `MLPHead`.

    Args:
        recipe: Has its sizes.
        shape: The batch.
        width: Columns of a candidate's row.
        shared: Columns that the candidates of a request share.
    """
    sizes = (width, *recipe.head_units, 1)
    candidate = sum(a * b for a, b in itertools.pairwise(sizes))
    products = shape.num_candidates * candidate + shared * sizes[1]
    return 2 * shape.batch_size * products
