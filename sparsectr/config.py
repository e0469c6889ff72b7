"""Typed, frozen configuration of a run: model, data and training.

Every field carries its help text and becomes a command-line flag
(`sparsectr.config_flags`). Nothing here imports TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sparsectr.config_fields import check_fields, config_field, require
from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import recipe_from_dict

CONTRACT = 6
"""Counts what changes the meaning of a run's files: 2 names the weights of a
checkpoint, where 1 numbered them; 3 has store.json; 4 takes sizes that are not
given from the store; 5 has sets and numbers of every kind; 6 has heads of any
depth.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How requests become batches."""

    max_history: int = config_field(
        1024, "Newest behaviours of a history that the model reads.", minimum=1
    )
    history_delay: int = config_field(
        0,
        "Seconds until a behavior is known: what is newer than that at a "
        "request is not in its history, as in a feature store that lags.",
        minimum=0,
    )
    length_buckets: tuple[int, ...] = config_field(
        (),
        "Padded history lengths, up to max_history, which follows them; none: "
        "a few that fit the store's own histories. A batch holds requests of "
        "one bucket, so each is a static shape and short histories are cheap.",
    )
    candidate_buckets: tuple[int, ...] = config_field(
        (),
        "Padded candidate counts; above the last, its multiples; none: one or "
        "two that fit the store's own requests.",
    )
    leave_out: tuple[str, ...] = config_field(
        (),
        "Fields of the store that the model does without, by the names of "
        "their tensors, as candidate_brand; also time fields by their names, "
        "statistics.NAME, and statistics or time_fields for all of them.",
    )
    shuffle_shards: int = config_field(
        16,
        "Shards whose requests are mixed with each other: more mix better, "
        "fewer are read faster from a store larger than memory.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("length_buckets", "candidate_buckets"):
            values = getattr(self, name)
            require(
                all(a < b for a, b in zip((0, *values), values, strict=False)),
                name,
                "be positive and ascending",
                values,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained."""

    batch_size: int = config_field(
        256, "Requests of one step, over all devices and hosts.", minimum=1
    )
    eval_batch_size: int = config_field(
        128, "Requests of one evaluation batch.", minimum=1
    )
    epochs: int = config_field(
        1, "Passes over the training requests.", minimum=1
    )
    max_steps: int = config_field(
        0, "Stop after so many steps; 0 for no limit.", minimum=0
    )
    newest_share: float = config_field(
        1.0,
        "Train on this share of the requests, the newest ones, as trials of a "
        "search do.",
    )
    learning_rate: float = config_field(1e-3, "Learning rate of Adam.")
    embedding_learning_rate: float = config_field(
        0.0,
        "Learning rate of the embedding tables; 0 for learning_rate.",
        minimum=0,
    )
    learning_rate_schedule: str = config_field(
        "constant",
        "What both learning rates do after the warm-up: stay, or fall to zero "
        "over the steps of the run, as half a period of a cosine.",
        choices=("constant", "cosine"),
    )
    warmup_steps: int = config_field(
        0,
        "Steps in which both learning rates rise linearly to their values.",
        minimum=0,
    )
    weight_decay: float = config_field(
        0.0,
        "Part of each kernel (no bias, scale, slope or table), times its "
        "learning rate, that a step takes off, apart from the gradient as in "
        "AdamW; 0 for none.",
        minimum=0,
    )
    embedding_weight_decay: float = config_field(
        0.0,
        "Likewise of the rows of embedding tables that a step has read, times "
        "their learning rate.",
        minimum=0,
    )
    clip_norm: float = config_field(
        0.0,
        "Scale the gradient down to this norm where it is longer: the norm "
        "over all weights, of rows of tables too, whose repeated ids and "
        "devices are added up first. 0 for no limit.",
        minimum=0,
    )
    ema_decay: float = config_field(
        0.0,
        "Evaluate and export an exponential moving average of the weights with "
        "this decay a step, such as 0.999; 0 for the last weights.",
        minimum=0,
    )
    seed: int = config_field(
        0, "Seed of weights, dropout and batch order.", minimum=0
    )
    mixed_precision: bool = config_field(
        False, "Compute in bfloat16; weights, times and loss stay float32."
    )
    jit_compile: bool = config_field(
        True, "Compile forward and backward pass with XLA."
    )
    compile_least_rows: int = config_field(
        1_500_000,
        "Shapes of batches that have fewer padded behaviours and candidates "
        "in all steps of the run are not compiled, since it would take longer "
        "than it saves; 0 for all.",
        minimum=0,
    )
    num_devices: int = config_field(
        0,
        "Devices of a host to mirror the model on: 0 for every GPU (or the one "
        "CPU), above that so many GPUs, or logical CPU devices where there is "
        "none.",
        minimum=0,
    )
    validation: bool = config_field(
        False,
        "Choose, with the test unread: train on the older part alone, "
        "evaluate on the validation, keep the best checkpoint, and print the "
        "flags of the final run.",
    )
    validate_every: int = config_field(
        0,
        "Steps between evaluations on the validation; 0 for every epoch.",
        minimum=0,
    )
    patience: int = config_field(
        0,
        "Evaluations in a row without a better AUC after which a run of "
        "--validation stops; 0 for never.",
        minimum=0,
    )
    checkpoint_every: int = config_field(
        500, "Steps between checkpoints.", minimum=1
    )
    keep_checkpoints: int = config_field(
        2, "Newest checkpoints that are kept.", minimum=1
    )
    log_every: int = config_field(
        50, "Steps between log lines and summaries.", minimum=1
    )

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.learning_rate > 0.0,
            "learning_rate",
            "be positive",
            self.learning_rate,
        )
        require(
            0.0 < self.newest_share <= 1.0,
            "newest_share",
            "be above 0 and at most 1",
            self.newest_share,
        )
        require(self.ema_decay < 1.0, "ema_decay", "be below 1", self.ema_decay)

    @property
    def evaluated_weights(self) -> str:
        """Which weights are evaluated and exported, in words."""
        if self.ema_decay:
            return f"average with decay {self.ema_decay}"
        return "last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: a recipe in `configs/datasets/` is one of these."""

    dataset: str
    model: ModelRecipe
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    @property
    def dtype(self) -> str:
        """Keras dtype policy of the model."""
        return "mixed_bfloat16" if self.train.mixed_precision else "float32"

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as values for JSON."""
        return {
            "contract": CONTRACT,
            **dataclasses.asdict(self),
            "model": self.model.to_dict(),
        }

    def to_json(self) -> str:
        """Returns the configuration as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Returns the configuration that `json.loads(to_json())` describes.

        Raises:
            ValueError: If a key is missing, unknown, or has a bad value, or
                the configuration is of another contract.
        """
        contract = values.get("contract", 1)
        if contract != CONTRACT:
            raise ValueError(
                f"it is of contract {contract} and this version of sparsectr "
                f"reads {CONTRACT}: train anew, or use the version that "
                "environment.json beside it names"
            )
        data: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in dict(values.get("data", {})).items()
        }
        try:
            return cls(
                dataset=values["dataset"],
                model=recipe_from_dict(values["model"]),
                data=DataConfig(**data),
                train=TrainConfig(**values.get("train", {})),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Not a configuration: {error}") from error
