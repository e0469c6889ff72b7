"""Typed, frozen configuration of model, data and training.

Every field carries its help text and becomes a command-line flag
(`sparsectr.config_flags`). Nothing here imports TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

SPARSITY_PRESETS: dict[str, dict[str, Any]] = {
    "sparsity-1": {"num_chunks": 8, "num_transition": 1, "num_local": 2},
    "sparsity-2": {"num_chunks": 16, "num_transition": 2, "num_local": 5},
    "sparsity-3": {"num_chunks": 16, "num_transition": 3, "num_local": 10},
    "sparsity-4": {"num_chunks": 32, "num_transition": 4, "num_local": 20},
}
"""The four configurations of the paper's Figure 3."""


def _field(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


def _require(condition: bool, name: str, rule: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the model is. The defaults are the paper's, at Sparsity-2."""

    name: str = _field("sparse_ctr", "Model: sparse_ctr or mean_pooling.")
    width: int = _field(32, "Width d of the sequence.")
    embedding_dim: int = _field(32, "Width of every embedding table.")
    num_blocks: int = _field(2, "Number of SparseBlocks.")
    num_heads: int = _field(8, "Attention heads; must divide width.")
    num_chunks: int = _field(16, "Chunks |P| of a history.")
    num_transition: int = _field(2, "Transition behaviours m of a chunk.")
    num_local: int = _field(5, "Behaviours w in the local window.")
    attention: str = _field(
        "evo", "evo for EvoAttention, full for full attention (variant A1)."
    )
    temporal_bias: bool = _field(
        True, "Add RelTemporal to the logits; false is variant B1."
    )
    head_units: int = _field(32, "Hidden width of the prediction MLP.")
    dropout_rate: float = _field(
        0.0, "Dropout on the embedded sequence, in training."
    )

    def __post_init__(self) -> None:
        _require(
            self.name in ("sparse_ctr", "mean_pooling"),
            "name",
            'be "sparse_ctr" or "mean_pooling"',
            self.name,
        )
        for name in (
            "width",
            "embedding_dim",
            "num_blocks",
            "num_heads",
            "num_chunks",
            "num_transition",
            "num_local",
            "head_units",
        ):
            value = getattr(self, name)
            _require(value >= 1, name, "be at least 1", value)
        _require(
            self.width % self.num_heads == 0,
            "num_heads",
            f"divide width={self.width}",
            self.num_heads,
        )
        _require(
            self.attention in ("evo", "full"),
            "attention",
            'be "evo" or "full"',
            self.attention,
        )
        _require(
            0.0 <= self.dropout_rate < 1.0,
            "dropout_rate",
            "be at least 0 and below 1",
            self.dropout_rate,
        )

    def with_preset(self, preset: str) -> "ModelConfig":
        """Returns a copy with the sparsity of a named preset.

        Raises:
            ValueError: If there is no such preset.
        """
        if preset not in SPARSITY_PRESETS:
            raise ValueError(
                f"`preset` must be one of {', '.join(SPARSITY_PRESETS)}. "
                f"Received: preset={preset!r}"
            )
        return dataclasses.replace(self, **SPARSITY_PRESETS[preset])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How requests become batches."""

    max_history: int = _field(
        1024, "Newest behaviours of a history that the model reads."
    )
    length_buckets: tuple[int, ...] = _field(
        (64, 128, 256, 512),
        "Padded history lengths below max_history. A batch holds requests of "
        "one bucket, so each is a static shape and short histories are cheap.",
    )
    candidate_buckets: tuple[int, ...] = _field(
        (4, 16, 64, 256),
        "Padded candidate counts; above the last, its multiples.",
    )
    shuffle_shards: int = _field(
        16,
        "Shards whose requests are mixed with each other: more mix better, "
        "fewer are read faster from a store larger than memory.",
    )

    def __post_init__(self) -> None:
        for name in ("max_history", "shuffle_shards"):
            value = getattr(self, name)
            _require(value >= 1, name, "be at least 1", value)
        for name in ("length_buckets", "candidate_buckets"):
            values = getattr(self, name)
            _require(
                all(a < b for a, b in zip((0, *values), values, strict=False)),
                name,
                "be positive and ascending",
                values,
            )
        _require(
            bool(self.candidate_buckets),
            "candidate_buckets",
            "have at least one entry",
            self.candidate_buckets,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained."""

    batch_size: int = _field(256, "Requests of one step, over all devices.")
    eval_batch_size: int = _field(128, "Requests of one evaluation batch.")
    epochs: int = _field(1, "Passes over the training requests.")
    max_steps: int = _field(0, "Stop after so many steps; 0 for no limit.")
    learning_rate: float = _field(1e-3, "Learning rate of Adam.")
    embedding_learning_rate: float = _field(
        0.0, "Learning rate of the embedding tables; 0 for learning_rate."
    )
    seed: int = _field(0, "Seed of weights, dropout and batch order.")
    mixed_precision: bool = _field(
        False, "Compute in bfloat16; weights, times and loss stay float32."
    )
    jit_compile: bool = _field(
        True, "Compile forward and backward pass with XLA."
    )
    num_devices: int = _field(
        0,
        "Devices to mirror the model on: 0 for every GPU (or the one CPU), "
        "above that so many GPUs, or logical CPU devices where there is none.",
    )
    checkpoint_every: int = _field(500, "Steps between checkpoints.")
    keep_checkpoints: int = _field(2, "Newest checkpoints that are kept.")
    log_every: int = _field(50, "Steps between log lines and summaries.")

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "eval_batch_size",
            "epochs",
            "checkpoint_every",
            "keep_checkpoints",
            "log_every",
        ):
            value = getattr(self, name)
            _require(value >= 1, name, "be at least 1", value)
        for name in (
            "max_steps",
            "num_devices",
            "seed",
            "embedding_learning_rate",
        ):
            value = getattr(self, name)
            _require(value >= 0, name, "not be negative", value)
        _require(
            self.learning_rate > 0.0,
            "learning_rate",
            "be positive",
            self.learning_rate,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: one recipe in `configs/` is one of these."""

    dataset: str
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def to_json(self) -> str:
        """Returns the configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Returns the configuration that `json.loads(to_json())` describes.

        Raises:
            ValueError: If a key is missing, unknown, or has a bad value.
        """
        data: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in dict(values.get("data", {})).items()
        }
        try:
            return cls(
                dataset=values["dataset"],
                model=ModelConfig(**values.get("model", {})),
                data=DataConfig(**data),
                train=TrainConfig(**values.get("train", {})),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Not a configuration: {error}") from error
